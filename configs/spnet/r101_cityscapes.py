"""SPNet (arXiv 2003.13328), ResNet-101, Cityscapes: the released recipe.

bash tools/dist_train.sh configs/spnet/r101_cityscapes.py 4 --init IMAGENET.pth
python tools/test.py configs/spnet/r101_cityscapes.py CHECKPOINT --tta

Public listings of results: 82.0 mIoU on test, 81.9 on val. They are not from the
paper. Ours: not measured. Batch 8 (4 GPUs x 2), 180 epochs, crop 768x768.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/cityscapes_semseg_768x768.py',
    '../_base_/schedules/120e.py',
    '../_base_/default_runtime.py',
]
initial_weights = (
    'ResNet-50 or -101 for ImageNet of PyTorch-Encoding (resnet50-25c4b509.pth, '
    'resnet101-2a57e44d.pth of zhanghang1989/PyTorch-Encoding, read by convert_checkpoint.py spnet)'
)
model = dict(
    backbone=dict(_delete_=True, type='SPNetResNet', depth=101, norm_cfg=_base_.norm_cfg),
    decode_head=dict(type='SPNetHead'),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4),
    ),
    test_cfg=dict(mode='slide', crop_size=(768, 768), stride=(512, 512)),
)
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_epochs=180)
optim_wrapper = dict(
    optimizer=dict(lr=0.005),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))),
)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=180, **_base_.per_iter)]
paper = dict(miou=81.9, split='Cityscapes val', source='public listings; 82.0 on test')
