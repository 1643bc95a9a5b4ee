"""PASCAL-Context, 59 classes, background ignored, as openseg.pytorch augments; crop 520x520.

Under data/VOCdevkit/VOC2010, in the layout of the host. Images are tested whole, in their size.
"""

_base_ = './loaders.py'
crop_size = (520, 520)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(
        type='RandomScaleCrop',
        crop_size=crop_size,
        ratio_range=(0.5, 2.0),
        aspect_range=(0.9, 1.1),
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ShiftBrightness', delta=10),
    dict(type='PackSegInputs'),
]
context = dict(
    type='PascalContextDataset59',
    data_root='data/VOCdevkit/VOC2010',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
)
lists = 'ImageSets/SegmentationContext/'
train_dataloader = dict(
    batch_size=2,  # 4 GPUs x 2
    dataset=dict(context, ann_file=lists + 'train.txt', pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(context, ann_file=lists + 'val.txt'))
test_dataloader = val_dataloader
