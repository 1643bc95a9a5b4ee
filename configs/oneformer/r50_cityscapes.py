"""OneFormer (arXiv 2211.06220), ResNet-50, Cityscapes.

bash tools/dist_train.sh configs/oneformer/r50_cityscapes.py 8

Paper: not measured. Ours: not measured. Batch 16 (8 GPUs x 2), 90k iterations, crop 512x1024.
"""

_base_ = [
    '../_base_/models/encoder_decoder.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/80k.py',
    '../_base_/default_runtime.py',
]
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
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    decode_head=dict(type='OneFormerHead', num_queries=150),
    test_cfg=dict(task='semantic'),
)
