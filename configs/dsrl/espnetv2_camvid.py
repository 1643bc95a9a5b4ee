"""DSRL (CVPR 2020), ESPNetv2 of width 2.0 from weights for Cityscapes, CamVid.

python tools/train.py configs/dsrl/espnetv2_camvid.py --init WEIGHTS --init-classes cityscapes

The network and the WEIGHTS of configs/fcn/espnetv2_camvid.py. It sees 240x180 and predicts 480x360.
Batch 8, 16 epochs. Results: README.md beside this file.
"""

_base_ = '../fcn/espnetv2_camvid.py'
model = dict(type='DSRL')
