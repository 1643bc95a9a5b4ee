"""PASCAL VOC 2012 and SBD, 21 classes, under data/VOCdevkit/VOC2012; crop 512x512."""

_base_ = './loaders.py'
crop_size = (512, 512)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='Pad', size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
resize = dict(type='Resize', scale=(2048, 512), keep_ratio=True)
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
voc = dict(
    type='PascalVOCDataset',
    data_root='data/VOCdevkit/VOC2012',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/train.txt',
    pipeline=train_pipeline,
)
sbd = dict(
    voc,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
    ann_file='ImageSets/Segmentation/aug.txt',
)
train_dataloader = dict(dataset=dict(type='ConcatDataset', datasets=[voc, sbd]))
val_dataloader = dict(
    dataset=dict(voc, ann_file='ImageSets/Segmentation/val.txt', pipeline=test_pipeline)
)
test_dataloader = val_dataloader
