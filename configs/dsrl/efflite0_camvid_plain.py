"""Half-size images and logits resized to full size, EfficientNet-Lite0, CamVid: DSRL's baseline.

python tools/train.py configs/dsrl/efflite0_camvid_plain.py

The network of configs/fcn/efflite0_camvid.py. Batch 8, 16 epochs. Results: README.md beside this
file.
"""

_base_ = '../fcn/efflite0_camvid.py'
model = dict(type='DSRL', sssr=None, sisr=None)
