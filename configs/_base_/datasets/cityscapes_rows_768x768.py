"""Cityscapes with the sampling and augmentation of HANet (arXiv 2003.05128); crop 768x768."""

_base_ = './cityscapes.py'
crop_size = (768, 768)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='AddRowPositions'),
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter'),
    dict(type='RandomGaussianBlur'),
    dict(type='PackRowPositions'),
]
# scales and flips of the official sliding test, whose windows a config sets in test_cfg
tta_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=s) for s in (0.5, 1.0, 2.0)],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadSegMap')],  # after the resize: labels keep their size
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=4,  # official: 2 GPUs x 4
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
