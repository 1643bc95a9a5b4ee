"""Inria aerial images, building or not, 5000x5000, under data/inria; crop 512x512.

The files of the download (AerialImageDataset) are train/images/CITYn.tif and train/gt/CITYn.tif.
Its authors propose tiles 1 to 5 of every city for validation. Images under ``test`` have no masks.
"""

_base_ = './loaders.py'
crop_size = (512, 512)
load_mask = dict(type='LoadColorSegMap', threshold=128)
train_pipeline = [
    dict(type='LoadImage'),
    load_mask,
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImage'), load_mask, dict(type='PackSegInputs')]
tta_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [load_mask],
            [dict(type='PackSegInputs')],
        ],
    ),
]
folders = dict(img_path='train/images', seg_map_path='train/gt')
dataset = dict(type='InriaDataset', data_root='data/inria', data_prefix=folders)
train_dataloader = dict(dataset=dict(tiles=tuple(range(6, 37)), pipeline=train_pipeline, **dataset))
val_dataloader = dict(dataset=dict(tiles=(1, 2, 3, 4, 5), pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
