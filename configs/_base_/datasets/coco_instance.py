"""COCO 2017 instances, 80 classes, under data/coco; whole images.

    data/coco/annotations/instances_{train,val}2017.json
    data/coco/{train,val}2017/*.jpg

PANet's augmentation: short sides of 400 to 1200 pixels and flips. Other data in COCO's form: a
child config with ``metainfo=dict(_delete_=True)`` in its data sets takes the classes of their json.
"""

_base_ = './loaders_panoptic.py'
classes = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog',
    'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich',
    'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch',
    'potted plant', 'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote',
    'keyboard', 'cell phone', 'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book',
    'clock', 'vase', 'scissors', 'teddy bear', 'hair drier', 'toothbrush',
)  # fmt: skip
metainfo = dict(classes=classes)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(
        type='RandomChoiceResize',
        scales=[1200, 1200, 1000, 800, 600, 400],
        resize_type='ResizeShortestEdge',
        max_size=1400,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackPanopticInputs'),  # with instances: they may overlap
]
resize = dict(type='Resize', scale=(1400, 1000), keep_ratio=True)
test_pipeline = [
    dict(type='LoadImage'),
    resize,
    dict(type='LoadPanoptic'),  # after the resize: labels keep their size
    dict(type='PackPanopticInputs'),
]
tta_pipeline = [
    dict(type='LoadImage'),
    resize,
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadPanoptic')],
            [dict(type='PackPanopticInputs')],
        ],
    ),
]

train_dataloader = dict(
    dataset=dict(
        type='CocoInstanceDataset',
        data_root='data/coco',
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img_path='train2017'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    )
)
auto_scale_lr = dict(base_batch_size=16)
val_dataloader = dict(
    dataset=dict(
        type='CocoInstanceDataset',
        data_root='data/coco',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img_path='val2017'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='ClassIoUMetric', iou_metrics=['mIoU']),  # pixels without an object are ignored
    dict(type='InstanceAP'),
]
test_evaluator = val_evaluator
