"""DSRL (CVPR 2020), EfficientNet-Lite0 from ImageNet weights, CamVid.

python tools/train.py configs/dsrl/efflite0_camvid.py

The network of configs/fcn/efflite0_camvid.py sees 240x180 and predicts 480x360. Batch 8, 16 epochs.
Results: README.md beside this file.
"""

_base_ = '../fcn/efflite0_camvid.py'
model = dict(type='DSRL')
