"""STDC2-Seg, PASCAL VOC 2012 with SBD, from a network that PSSL pre-trained.

python tools/convert_checkpoint.py pssl work_dirs/pssl/stdc2_pssl/epoch_5.pth START.pth
bash tools/dist_train.sh configs/pssl/stdc2_voc12aug.py 4 --init START.pth

Released: 74.49 mIoU on val, one scale; 68.98 without PSSL (its README). Ours: not measured.
Batch 16 (4 GPUs x 4), 40k iterations, crop 512x512.
"""

_base_ = [
    '../_base_/models/stdc2.py',
    '../_base_/datasets/voc12aug.py',
    '../_base_/schedules/40k.py',
    '../_base_/default_runtime.py',
]
initial_weights = 'a checkpoint of configs/pssl/stdc2_pssl.py without its classifier'
ce = dict(type='CrossEntropyLoss', avg_non_ignore=True)
aux_head = dict(_base_.aux_head, align_corners=True, loss_decode=ce)
model = dict(
    num_classes=21,
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # those of the pre-training
    backbone=dict(backbone_cfg=dict(init_cfg=None)),
    decode_head=dict(loss_decode=ce),
    auxiliary_head=[aux_head, dict(aux_head, in_index=1)],
)
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=16)
paper = dict(miou=74.49, split='PascalVOC val', source='released README, VOC12aug, one scale')
