"""Settings that data sets with segments share: loading, testing and scoring of images.

They need ``pip install -e '.[panoptic]'``. COCO's protocol scores 100 predictions of an image.
"""

_base_ = './loaders.py'
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(type='PackPanopticInputs'),
]
tta_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadPanoptic')],
            [dict(type='PackPanopticInputs')],
        ],
    ),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='ClassIoUMetric', iou_metrics=['mIoU']),
    dict(type='PanopticQuality'),
    dict(type='InstanceAP'),
]
test_evaluator = val_evaluator
