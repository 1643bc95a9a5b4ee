"""Cityscapes train and val with the sampling and augmentation of HANet; crop 864x864."""

_base_ = './cityscapes_rows_768x768.py'
crop_size = (864, 864)
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
cityscapes = dict(type='CityscapesIdsDataset', data_root='data/cityscapes', pipeline=train_pipeline)
train_dataloader = dict(
    batch_size=3,  # official: 4 GPUs x 3
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='ConcatDataset',
            datasets=[
                dict(
                    cityscapes,
                    data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
                ),
                dict(
                    cityscapes,
                    data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
                ),
            ],
        )
    ),
)
auto_scale_lr = dict(base_batch_size=12)
