"""FPN with group norm, the baseline of PANet's neck, ResNet-50, Cityscapes.

python tools/train.py configs/panet/fpn_r50_cityscapes.py

The paper has no semantic result. Ours: not measured. Batch 8, 80k iterations, crop 512x1024.
"""

_base_ = [
    '../_base_/models/r50-fpn.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/80k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    decode_head=dict(type='FPNHead', feature_strides=[4, 8, 16, 32], channels=128),
)
