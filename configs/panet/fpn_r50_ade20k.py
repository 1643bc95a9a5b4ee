"""FPN with group norm, the baseline of PANet's neck, ResNet-50, ADE20K.

bash tools/dist_train.sh configs/panet/fpn_r50_ade20k.py 2

The paper has no semantic result. Ours: not measured. Batch 16 (2 GPUs x 8), 80k iterations, crop
512x512.
"""

_base_ = [
    '../_base_/models/r50-fpn.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/80k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=150,
    decode_head=dict(type='FPNHead', feature_strides=[4, 8, 16, 32], channels=128),
    data_preprocessor=dict(size=_base_.crop_size, size_divisor=None),
)
