"""Gated-SCNN (arXiv 1907.05740), ResNet-50 of output stride 8, CamVid, from scratch, for a GPU.

python tools/train.py configs/gscnn/r50_camvid.py --amp

Batch 8, 200 epochs, crop 360x480. Ours: not measured.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/camvid.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=11,
    type='GSCNN',
    levels=dict(in_channels=[64, 256, 512, 1024, 2048], in_index=[0, 1, 2, 3, 4]),
    head_level=dict(in_channels=2048, in_index=4),
    backbone=dict(type='StemResNet', init_cfg=None),
    decode_head=dict(type='GSCNNHead'),
)
test_evaluator = [_base_.val_evaluator, dict(type='BoundaryFScore')]
