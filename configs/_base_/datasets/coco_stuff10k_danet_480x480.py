"""COCO-Stuff 10k, 171 classes, with the pipelines of DANet for PASCAL-Context; crop 480x480.

Under data/coco_stuff10k, in the layout of the host. It is tested on its test split.
"""

_base_ = './pascal_context_danet_480x480.py'
coco = dict(type='COCOStuffDataset', data_root='data/coco_stuff10k', reduce_zero_label=True)
train_folders = dict(img_path='images/train2014', seg_map_path='annotations/train2014')
test_folders = dict(img_path='images/test2014', seg_map_path='annotations/test2014')
train_dataloader = dict(dataset=dict(coco, ann_file='', data_prefix=train_folders))
val_dataloader = dict(dataset=dict(coco, ann_file='', data_prefix=test_folders))
test_dataloader = val_dataloader
