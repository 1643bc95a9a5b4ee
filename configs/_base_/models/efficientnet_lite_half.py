"""EfficientNet-Lite of half the width and depth, output stride 32, from random weights."""

_base_ = './efficientnet_lite0.py'
model = dict(
    levels=dict(in_channels=[16, 24, 56, 160]),
    head_level=dict(in_channels=160),
    backbone=dict(
        widen_factor=0.5,
        deepen_factor=0.5,
        norm_cfg=dict(momentum=0.1),  # few steps
        init_cfg=None,
    ),
)
