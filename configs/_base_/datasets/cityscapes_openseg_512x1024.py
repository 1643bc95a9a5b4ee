"""Cityscapes with the augmentation of openseg.pytorch; crop 512x1024."""

_base_ = './cityscapes.py'
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(
        type='RandomScaleCrop',
        crop_size=_base_.crop_size,
        ratio_range=(0.5, 2.0),
        aspect_range=(0.9, 1.1),
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ShiftBrightness', delta=10),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2,  # 4 GPUs x 2
    dataset=dict(pipeline=train_pipeline),
)
