"""Cityscapes with the augmentation of openseg.pytorch; crop 512x1024.

Brightness is the only change of colours. The released augmentation also stretches images by 0.9 to
1.1; this augmentation does not.
"""

_base_ = './cityscapes.py'
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomScaleCrop', crop_size=_base_.crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='PhotoMetricDistortion',
        brightness_delta=10,
        contrast_range=(1, 1),
        saturation_range=(1, 1),
        hue_delta=1,  # of 180; 0 is an error
    ),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2,  # 4 GPUs x 2
    dataset=dict(pipeline=train_pipeline),
)
