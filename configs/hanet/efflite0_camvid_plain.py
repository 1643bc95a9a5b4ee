"""DeepLabV3+'s head on EfficientNet-Lite0 from ImageNet weights, CamVid: HANet without gates.

python tools/train.py configs/hanet/efflite0_camvid_plain.py

Batch 8, 16 epochs, full images. Results: README.md beside this file.
"""

_base_ = './efflite0_camvid.py'
model = dict(decode_head=dict(gates=()))
