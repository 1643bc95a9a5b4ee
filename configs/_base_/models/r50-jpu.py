"""ResNet-50 of output stride 32, without dilation, and FastFCN's neck (arXiv 1903.11816).

The stem is the released one with 64, 64 and 128 channels. The host's ImageNet weights do not fit
it: start from released weights with ``--init PATH`` (see configs/fastfcn/README.md).
"""

_base_ = './r50-d8.py'
initial_weights = (
    'ResNet-50 for ImageNet of PyTorch-Encoding (resnet50-25c4b509.pth of '
    'zhanghang1989/PyTorch-Encoding, read by convert_checkpoint.py fastfcn)'
)
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
