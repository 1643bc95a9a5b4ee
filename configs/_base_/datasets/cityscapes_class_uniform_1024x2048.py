"""Cityscapes with the sampling and augmentation of HMSA (arXiv 2005.10821); crop 1024x2048."""

_base_ = './cityscapes.py'
crop_size = (1024, 2048)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=1,  # official: 8 GPUs x 1
    sampler=dict(_delete_=True, type='ClassUniformSampler', pct=0.5),
    dataset=dict(
        _delete_=True,
        type='ClassCentroidDataset',
        dataset=dict(
            type='CityscapesIdsDataset',
            data_root='data/cityscapes',
            data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
            pipeline=train_pipeline,
        ),
    ),
)
