"""ResNet-50 and an FPN with group norm, for any head."""

_base_ = './encoder_decoder.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    num_classes=19,
    norm_cfg=norm_cfg,
    levels=dict(in_channels=[256] * 4, in_index=[0, 1, 2, 3]),
    head_level=dict(in_channels=[256] * 4, in_index=[0, 1, 2, 3], input_transform='resize_concat'),
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
        ),
    ),
    neck=dict(
        type='FPN',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        num_outs=4,
        norm_cfg=dict(type='GN', num_groups=32),
    ),
)
