"""DSRL (CVPR 2020), DeepLabV3+ on ResNet-101, Cityscapes: SSSR, SISR and FA.

python tools/train.py configs/dsrl/r101_deeplabv3plus_cityscapes.py --amp

Paper, Figure 1: 2 to 5 points above the same model without DSRL at the same input. Ours: not
measured. Batch 8, 80k iterations, crop 512x1024, which the network sees at 256x512.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/80k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    type='DSRL',
    backbone=dict(
        depth=101,
        strides=(1, 2, 2, 1),  # output stride 16
        dilations=(1, 1, 1, 2),
        init_cfg=dict(checkpoint='open-mmlab://resnet101_v1c'),
    ),
    decode_head=dict(
        type='DepthwiseSeparableASPPHead',
        channels=512,
        dilations=(1, 6, 12, 18),
        c1_in_channels=256,
        c1_channels=48,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    sssr=dict(type='PixelShuffleUpsampler'),
    sisr=dict(type='ESPCNDecoder', in_channels=[256, 2048], in_index=[0, 3]),
    loss_sisr=dict(type='ReconstructionLoss', loss_weight=0.1),
    loss_fa=dict(type='FeatureAffinityLoss', loss_weight=1.0),
)
