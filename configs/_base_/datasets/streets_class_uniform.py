"""Streets with the sampling of HMSA (arXiv 2005.10821): half of the crops hold a class centroid."""

_base_ = './streets.py'
train_dataloader = dict(
    sampler=dict(_delete_=True, type='ClassUniformSampler', pct=0.5),
    dataset=dict(
        _delete_=True,
        type='ClassCentroidDataset',
        dataset=dict(
            type='CityscapesIdsDataset',
            data_root='data/streets',
            data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
            pipeline=_base_.train_pipeline,
        ),
    ),
)
