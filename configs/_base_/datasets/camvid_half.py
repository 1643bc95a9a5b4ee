"""CamVid with images halved to 240x180 before the network; the metric stays at 480x360."""

_base_ = './camvid.py'
crop_size = (180, 240)
halve = dict(type='Resize', scale_factor=0.5, interpolation='area')
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    halve,
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    halve,
    dict(type='LoadSegMap'),  # after the resize: labels keep their size
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImage'),
    halve,
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadSegMap')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
