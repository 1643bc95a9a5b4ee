"""EfficientNet-Lite of half the width and depth, and a narrow FPN head, from random weights."""

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
    decode_head=dict(
        type='FPNHead',
        feature_strides=[4, 8, 16, 32],
        channels=48,
        loss_decode=dict(type='WeightedCELoss'),
    ),
)
