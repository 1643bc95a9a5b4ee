"""MagNet-Fast: 90 % of the points of the two least certain patches of each scale; CamVid.

python tools/test.py configs/magnet/efflite0_camvid_fast.py CHECKPOINT

Trained as efflite0_camvid.py. Results: README.md beside this file.
"""

_base_ = './efflite0_camvid.py'
model = dict(test_cfg=dict(n_points=0.9, n_patches=2))
