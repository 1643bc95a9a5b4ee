"""PSSL (arXiv 2207.03335) in small: EfficientNet-Lite of half the width, drawn pictures of objects.

python tools/make_shapes.py data/shapes
python tools/train.py configs/pssl/efflite_fpn_shapes.py

The labels are made first; README.md beside this file has all commands. Batch 16, 12 epochs, crop
96x96, from random weights, for one CPU core.
"""

_base_ = [
    '../_base_/models/efficientnet_lite_half.py',
    '../_base_/datasets/pssl.py',
    '../_base_/schedules/camvid.py',
    '../_base_/default_runtime.py',
]
crop_size = (96, 96)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPSSLLabel'),
    dict(type='RandomResize', scale=(4096, 96), ratio_range=(1.0, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, ignore_index=_base_.ignore_index),
    dict(type='Pad', size=crop_size, pad_val=dict(img=127, seg=_base_.ignore_index)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter', brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, prob=0.5),
    dict(type='PackSegInputs'),
]
ce = dict(type='WeightedCELoss', background_weight=0.1, eps=1e-8, in_strips=True)
model = dict(
    num_classes=6,
    ignore_index=_base_.ignore_index,
    data_preprocessor=dict(seg_pad_val=_base_.ignore_index),
    decode_head=dict(type='FPNHead', feature_strides=[4, 8, 16, 32], channels=48, loss_decode=ce),
)
metainfo = dict(classes=('car', 'house', 'person', 'sign', 'tree', 'background'))
shapes = dict(data_root='data/shapes', metainfo=metainfo)
train_dataloader = dict(batch_size=16, dataset=dict(shapes, pipeline=train_pipeline))
val_dataloader = dict(dataset=shapes)
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=16)
train_cfg = dict(max_epochs=12, val_interval=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, **_base_.per_iter),
    dict(type='PolyLRToEnd', power=0.9, begin=1, end=12, **_base_.per_iter),
]
