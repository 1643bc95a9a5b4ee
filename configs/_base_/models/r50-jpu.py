"""ResNet-50 of output stride 32, without dilation, and FastFCN's neck (arXiv 1903.11816).

The stem is the released one, 64-64-128 channels wide, which the host's weights for ImageNet do not
fit: `--init PATH` starts from released weights, configs/fastfcn/README.md says how.
"""

_base_ = './r50-d8.py'
model = dict(
    backbone=dict(
        stem_channels=128,
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        contract_dilation=False,
        init_cfg=None,
    ),
    neck=dict(type='FastFCNJPU', in_channels=(512, 1024, 2048), norm_cfg=_base_.norm_cfg),
)
