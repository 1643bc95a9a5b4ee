"""Gated-SCNN (arXiv 1907.05740), ResNet-101 of output stride 8, Cityscapes.

bash tools/dist_train.sh configs/gscnn/r101_cityscapes.py 8

The recipe of r50_cityscapes.py. Ours: not measured.
"""

_base_ = './r50_cityscapes.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='open-mmlab://resnet101_v1c')))
