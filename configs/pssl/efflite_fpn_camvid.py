"""EfficientNet-Lite of half the width, CamVid: with or without pre-training by PSSL.

python tools/convert_checkpoint.py pssl work_dirs/pssl/efflite_fpn_shapes/epoch_12.pth START.pth
python tools/train.py configs/pssl/efflite_fpn_camvid.py --init START.pth
python tools/train.py configs/pssl/efflite_fpn_camvid.py

Batch 8, 6 epochs, half-size images, for one CPU core. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/efficientnet_lite_half.py',
    '../_base_/datasets/camvid_half.py',
    '../_base_/schedules/camvid.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=11,
    decode_head=dict(
        type='FPNHead',
        feature_strides=[4, 8, 16, 32],
        channels=48,
        loss_decode=dict(type='WeightedCELoss'),
    ),
)
train_cfg = dict(max_epochs=6, val_interval=6)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, **_base_.per_iter),
    dict(type='PolyLRToEnd', power=0.9, begin=1, end=6, **_base_.per_iter),
]
