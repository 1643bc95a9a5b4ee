"""HANet (arXiv 2003.05128): its head on HRNet-W18-small, CamVid, from scratch.

python tools/train.py configs/hanet/hrnet18s_camvid.py

Batch 8, 25 epochs, half-size images, for two CPU cores. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/hrnet18s.py',
    '../_base_/datasets/camvid_half.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=11,
    backbone=dict(init_cfg=None),
    decode_head=dict(
        type='HANetHead',
        channels=128,
        dilations=(3, 6, 9),  # output stride 32
        attention=dict(reduction=16),  # narrow levels
    ),
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    _base_.halve,
    dict(type='AddRowPositions'),
    dict(type='RandomScaleCrop', crop_size=_base_.crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackRowPositions'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
