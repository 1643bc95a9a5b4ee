"""ResNet-18 with a deep stem, stages 3 and 4 dilated to output stride 8."""

_base_ = './r50-d8.py'
model = dict(
    levels=dict(in_channels=[64, 128, 256, 512]),
    head_level=dict(in_channels=512),
    backbone=dict(depth=18, init_cfg=dict(checkpoint='open-mmlab://resnet18_v1c')),
)
