"""DANet's head (arXiv 1809.02983), narrow, on EfficientNet-Lite0 from ImageNet weights, CamVid.

python tools/train.py configs/danet/efflite0_camvid.py

Only the head differs from configs/fcn/efflite0_camvid_stride8.py. Results: README.md beside this
file.
"""

_base_ = '../fcn/efflite0_camvid.py'
model = dict(decode_head=dict(_delete_=True, type='DANetHead', channels=64, loss_decode=_base_.ce))
