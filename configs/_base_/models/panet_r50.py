"""PANet on ResNet-50 as released: Caffe's form with frozen norms, and all of the paper's parts."""

_base_ = './encoder_decoder.py'
model = dict(
    type='PANetInstanceSegmentor',
    data_preprocessor=dict(
        mean=[102.9801, 115.9465, 122.7717],  # BGR
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        size_divisor=32,
        test_cfg=dict(size_divisor=32),
    ),
    num_classes=80,
    norm_cfg=dict(type='SyncBN', requires_grad=True),  # of other heads
    levels=dict(in_channels=[256] * 5, in_index=[0, 1, 2, 3, 4]),
    head_level=dict(in_channels=[256] * 4, in_index=[0, 1, 2, 3], input_transform='resize_concat'),
    backbone=dict(
        type='ResNet',
        depth=50,
        style='caffe',
        norm_cfg=dict(type='FrozenBN', requires_grad=False),
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron2/resnet50_caffe'),
    ),
    neck=dict(type='PANetFPN', in_channels=[256, 512, 1024, 2048], num_outs=5),
    decode_head=dict(type='PANetInstanceHead'),
)
