"""Gated-SCNN (arXiv 1907.05740), narrow, on ResNet-18, the drawn streets, from scratch.

python tools/make_streets.py data/streets
python tools/train.py configs/gscnn/r18_streets.py

Batch 8, 25 epochs, crop 256x512, for two CPU cores.
"""

_base_ = [
    '../_base_/models/r18-d8.py',
    '../_base_/datasets/streets.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
model = dict(
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
test_evaluator = [_base_.val_evaluator, dict(type='BoundaryFScore')]
