"""Half-size images and logits resized to full size, ESPNetv2, CamVid: DSRL's baseline.

python tools/train.py configs/dsrl/espnetv2_camvid_plain.py --init WEIGHTS --init-classes cityscapes

The network and the WEIGHTS of configs/fcn/espnetv2_camvid.py. Results: README.md beside this file.
"""

_base_ = './espnetv2_camvid.py'
model = dict(sssr=None, sisr=None)
