"""ResNet-50 with a deep stem, stages 3 and 4 dilated to output stride 8."""

_base_ = './encoder_decoder.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    num_classes=19,
    norm_cfg=norm_cfg,
    levels=dict(in_channels=[256, 512, 1024, 2048], in_index=[0, 1, 2, 3]),
    head_level=dict(in_channels=2048, in_index=3),
    backbone=dict(
        type='ResNetV1c',
        depth=50,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        norm_cfg=norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet50_v1c'),
    ),
)
