"""Cityscapes with the segments of its instanceIds, under data/cityscapes; crop 512x1024.

OneFormer's augmentation: a short side of 0.5 to 2 times 1024 pixels. Anything in the same layout
runs with --data-root, for example the data of tools/make_streets.py.
"""

_base_ = './loaders_panoptic.py'
crop_size = (512, 1024)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(
        type='RandomChoiceResize',
        scales=[512, 614, 716, 819, 921, 1024, 1126, 1228, 1331, 1433, 1536]
        + [1638, 1740, 1843, 1945, 2048],
        resize_type='ResizeShortestEdge',
        max_size=4096,
    ),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackPanopticInputs'),
]

train_dataloader = dict(
    dataset=dict(
        type='CityscapesPanopticDataset',
        data_root='data/cityscapes',
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type='CityscapesPanopticDataset',
        data_root='data/cityscapes',
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
    )
)
test_dataloader = val_dataloader
server_prefix = dict(img_path='leftImg8bit/test')  # tools/test.py --format-only
