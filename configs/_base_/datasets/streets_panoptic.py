"""Streets with segments, drawn by ``python tools/make_streets.py data/streets``; 256x512."""

_base_ = './cityscapes_panoptic.py'
crop_size = (256, 512)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackPanopticInputs'),
]
train_dataloader = dict(dataset=dict(data_root='data/streets', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root='data/streets'))
test_dataloader = val_dataloader
server_prefix = None
