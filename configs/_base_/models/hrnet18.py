"""HRNetV2-W18: 3/8 of W48's widths, output stride 4."""

_base_ = './hrnet.py'
levels = dict(in_channels=[18, 36, 72, 144])
model = dict(
    levels=levels,
    head_level=levels,
    backbone=dict(
        extra=dict(
            stage2=dict(num_channels=(18, 36)),
            stage3=dict(num_channels=(18, 36, 72)),
            stage4=dict(num_channels=(18, 36, 72, 144)),
        ),
        init_cfg=dict(checkpoint='open-mmlab://msra/hrnetv2_w18'),
    ),
)
