"""Cityscapes with the augmentation of Gated-SCNN (arXiv 1907.05740); crop 720x720."""

_base_ = './cityscapes.py'
crop_size = (720, 720)  # official; the paper writes 800
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter'),
    dict(type='RandomGaussianBlur'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2,  # official: 8 GPUs x 1 or 2; the paper writes 16 in all
    dataset=dict(pipeline=train_pipeline),
)
auto_scale_lr = dict(base_batch_size=16)
