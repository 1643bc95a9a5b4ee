"""PASCAL-Context, 60 classes with background, with the augmentation and tests of PyTorch-Encoding.

Under data/VOCdevkit/VOC2010, in the layout of the host; crop 480x480.
"""

_base_ = './ade20k_encoding_480x480.py'
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
