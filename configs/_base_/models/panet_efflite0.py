"""PANet, narrow, on EfficientNet-Lite0, for CPU cores; all of the paper's parts."""

_base_ = './efficientnet_lite0.py'
width = 64
model = dict(
    type='PANetInstanceSegmentor',
    data_preprocessor=dict(size_divisor=32, test_cfg=dict(size_divisor=32)),
    levels=dict(in_channels=[width] * 5, in_index=[0, 1, 2, 3, 4]),
    head_level=dict(
        in_channels=[width] * 4, in_index=[0, 1, 2, 3], input_transform='resize_concat'
    ),
    backbone=dict(frozen_stages=2),  # for short steps on a CPU
    neck=dict(type='PANetFPN', in_channels=[24, 40, 112, 320], out_channels=width, num_outs=5),
    decode_head=dict(
        type='PANetInstanceHead',
        box_head=dict(type='PANetBoxHead', channels=width, fc_channels=256),
        mask_head=dict(type='PANetMaskHead', channels=width),
    ),
    train_cfg=dict(proposals_per_level=500, proposals_per_image=500, rois_per_image=64),
    test_cfg=dict(proposals_per_level=300, proposals_per_image=300),
)
