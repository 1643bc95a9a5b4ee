"""CamVid at 480x360: crops of 256x320 from images at 0.6 to 1.6 times that, flips, brightness."""

_base_ = './camvid.py'
crop_size = (256, 320)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.6, 1.6)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
