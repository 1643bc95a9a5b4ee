"""Mapillary Vistas v1.2, 65 classes, with the sampling and augmentation of HMSA (arXiv 2005.10821).

Under data/mapillary as unpacked; long edge 2177, crop 1024x1024. The metric is computed at the size
of the original images; HMSA's 61.05 was measured at a long edge of 2177.
"""

_base_ = './cityscapes.py'
crop_size = (1024, 1024)
resize = dict(type='Resize', scale=(2177, 2177), keep_ratio=True)  # official
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    resize,
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter'),
    dict(type='RandomGaussianBlur'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    resize,
    dict(type='LoadSegMap'),  # after the resize: labels keep their size
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImage'),
    resize,
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadSegMap')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=2,  # official: 8 GPUs x 2
    sampler=dict(_delete_=True, type='ClassUniformSampler', pct=0.5),
    dataset=dict(
        _delete_=True,
        type='ClassCentroidDataset',
        dataset=dict(
            type='Mapillary65Dataset',
            data_root='data/mapillary',
            data_prefix=dict(img_path='training/images', seg_map_path='training/v1.2/labels'),
            pipeline=train_pipeline,
        ),
    ),
)
auto_scale_lr = dict(base_batch_size=16)
val_dataloader = dict(
    dataset=dict(
        type='Mapillary65Dataset',
        data_root='data/mapillary',
        data_prefix=dict(img_path='validation/images', seg_map_path='validation/v1.2/labels'),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
