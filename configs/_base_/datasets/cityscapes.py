"""Cityscapes as downloaded, under data/cityscapes; crop 512x1024.

Anything in the same layout runs with --data-root, for example the data of tools/make_streets.py.
"""

_base_ = './loaders.py'
crop_size = (512, 1024)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    dataset=dict(
        type='CityscapesIdsDataset',
        data_root='data/cityscapes',
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type='CityscapesIdsDataset',
        data_root='data/cityscapes',
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
    )
)
test_dataloader = val_dataloader
server_prefix = dict(img_path='leftImg8bit/test')  # tools/test.py --format-only
