"""Streets' objects, 8 classes, drawn by ``python tools/make_streets.py data/streets``; 256x512."""

_base_ = './streets_panoptic.py'
classes = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
metainfo = dict(classes=classes)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(type='RandomScaleCrop', crop_size=_base_.crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
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
