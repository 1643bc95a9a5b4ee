"""PP-LiteSeg-B, Cityscapes, from a network that PSSL pre-trained.

python tools/convert_checkpoint.py pssl work_dirs/pssl/pp_liteseg_pssl/epoch_5.pth START.pth
bash tools/dist_train.sh configs/pssl/pp_liteseg_cityscapes.py 4 --init START.pth

Released: 79.06 mIoU on val, one scale; 79.04 without PSSL (its README). Ours: not measured.
Batch 16 (4 GPUs x 4), 160k iterations, crop 512x1024 of images at 0.125 to 1.5.
Rate, warm-up and scales are not checked against the paper of PP-LiteSeg (arXiv 2204.02681).
"""

_base_ = [
    '../_base_/models/pp_liteseg.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/160k.py',
    '../_base_/default_runtime.py',
]
initial_weights = 'a checkpoint of configs/pssl/pp_liteseg_pssl.py without its classifier'
ce = dict(type='CrossEntropyLoss', avg_non_ignore=True)
first, second = _base_.model.auxiliary_head
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # those of the pre-training
    backbone=dict(init_cfg=None),
    auxiliary_head=[dict(first, loss_decode=ce), dict(second, loss_decode=ce)],
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomScaleCrop', crop_size=_base_.crop_size, ratio_range=(0.125, 1.5)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=16)
paper = dict(miou=79.06, split='Cityscapes val', source='released README, one scale')
