"""Gated-SCNN (arXiv 1907.05740), narrow, on ResNet-18, CamVid, from scratch.

python tools/train.py configs/gscnn/r18_camvid.py

Batch 8, 25 epochs, half-size images, for two CPU cores. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/r18-d8.py',
    '../_base_/datasets/camvid_half.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=11,
    type='GSCNN',
    levels=dict(in_channels=[32, 64, 128, 256, 512], in_index=[0, 1, 2, 3, 4]),
    head_level=dict(in_channels=512, in_index=4),
    backbone=dict(
        type='StemResNet',
        stem_channels=32,
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        init_cfg=None,
    ),
    decode_head=dict(
        type='GSCNNHead',
        channels=96,
        shape_channels=(16, 8, 8),
        dilations=(3, 6, 9),  # output stride 32
    ),
)
val_evaluator = [_base_.val_evaluator, dict(type='BoundaryFScore')]
test_evaluator = val_evaluator
