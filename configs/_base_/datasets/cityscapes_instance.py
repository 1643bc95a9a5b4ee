"""Cityscapes' instances, 8 classes, under data/cityscapes; whole images.

PANet's augmentation: a short side of 800 or 1024 pixels and flips.
"""

_base_ = './cityscapes_panoptic.py'
classes = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
metainfo = dict(classes=classes)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(
        type='RandomChoiceResize',
        scales=[800, 1024],
        resize_type='ResizeShortestEdge',
        max_size=2048,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackPanopticInputs', instances=True),
]
train_dataloader = dict(dataset=dict(metainfo=metainfo, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='ClassIoUMetric', iou_metrics=['mIoU']),  # pixels without an object are ignored
    dict(type='InstanceAP'),
]
test_evaluator = val_evaluator
server_prefix = None
