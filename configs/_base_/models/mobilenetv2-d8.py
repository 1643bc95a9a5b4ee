"""MobileNetV2, its last stages dilated to output stride 8."""

_base_ = './encoder_decoder.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    num_classes=19,
    norm_cfg=norm_cfg,
    levels=dict(in_channels=[24, 32, 96, 320], in_index=[0, 1, 2, 3]),
    head_level=dict(in_channels=320, in_index=3),
    backbone=dict(
        type='MobileNetV2',
        strides=(1, 2, 2, 1, 1, 1, 1),
        dilations=(1, 1, 1, 2, 2, 4, 4),
        out_indices=(1, 2, 4, 6),
        norm_cfg=norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint='mmcls://mobilenet_v2'),
    ),
)
