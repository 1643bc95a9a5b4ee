"""OneFormer on ResNet-50 with 150 queries: released settings of Cityscapes."""

_base_ = './encoder_decoder.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='OneFormer',
    data_preprocessor=dict(size_divisor=32, test_cfg=dict(size_divisor=32)),
    num_classes=19,
    norm_cfg=norm_cfg,
    levels=dict(in_channels=[256, 512, 1024, 2048], in_index=[0, 1, 2, 3]),
    head_level=dict(in_channels=2048, in_index=3),
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
        ),
    ),
    decode_head=dict(type='OneFormerHead', num_queries=150),
    test_cfg=dict(task='panoptic', max_instances=150),
)
