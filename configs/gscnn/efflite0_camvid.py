"""Gated-SCNN (arXiv 1907.05740), narrow, on EfficientNet-Lite0 from ImageNet weights, CamVid.

python tools/train.py configs/gscnn/efflite0_camvid.py

Batch 8, 16 epochs, full images. Results: README.md beside this file.
"""

_base_ = '../fcn/efflite0_camvid.py'
levels = dict(in_channels=[16, 24, 40, 112, 320], in_index=[0, 1, 2, 3, 4])
model = dict(
    type='GSCNN',
    levels=levels,
    head_level=dict(in_index=[2, 3, 4]),
    backbone=dict(out_indices=levels['in_index']),
    decode_head=dict(
        _delete_=True,
        type='GSCNNHead',
        channels=64,
        shape_channels=(16, 8, 8),
        dilations=(3, 6, 9),  # output stride 32
        loss_decode=_base_.ce,
    ),
)
val_evaluator = [_base_.val_evaluator, dict(type='BoundaryFScore')]
test_evaluator = val_evaluator
