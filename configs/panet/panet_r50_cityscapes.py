"""PANet's neck (arXiv 1803.01534), ResNet-50, Cityscapes: fpn_r50_cityscapes.py with its path.

python tools/train.py configs/panet/panet_r50_cityscapes.py

The paper has no semantic result. Ours: not measured. Batch 8, 80k iterations, crop 512x1024.
"""

_base_ = './fpn_r50_cityscapes.py'
model = dict(neck=dict(type='PANetFPN'))
