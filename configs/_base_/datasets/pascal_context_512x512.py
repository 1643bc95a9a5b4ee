"""PASCAL-Context, 60 classes with background, with the pipelines of ADE20K; crop 512x512.

Under data/VOCdevkit/VOC2010, in the layout of the host. The config of a model pads crops of small
images: ``data_preprocessor=dict(size=_base_.crop_size, size_divisor=None)``.
"""

_base_ = './ade20k.py'
context = dict(
    type='PascalContextDataset',
    data_root='data/VOCdevkit/VOC2010',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
)
lists = 'ImageSets/SegmentationContext/'
train_dataloader = dict(dataset=dict(context, ann_file=lists + 'train.txt'))
val_dataloader = dict(dataset=dict(context, ann_file=lists + 'val.txt'))
test_dataloader = val_dataloader
server_prefix = None  # all labels are public
