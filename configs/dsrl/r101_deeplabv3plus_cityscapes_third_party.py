"""DSRL on DeepLabV3+ by a third party (Dootmaan/DSRL); it is not the authors' design.

python tools/test.py configs/dsrl/r101_deeplabv3plus_cityscapes_third_party.py CONVERTED

Its README: 67.87 mIoU on 1024x1024 centre crops. Ours: not measured. Losses as there, with our
schedule: batch 8, 80k iterations, crop 512x1024.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/80k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    type='DSRL',
    levels=dict(in_channels=[256, 256], in_index=[0, 1]),  # levels of the neck
    head_level=dict(in_channels=256, in_index=1),
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=101,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        multi_grid=(2, 4, 8),  # the dilations of its blocks
        out_indices=(0, 3),
        norm_cfg=_base_.norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth',
        ),
    ),
    neck=dict(type='ASPPNeck', in_channels=(256, 2048), norm_cfg=_base_.norm_cfg),
    decode_head=dict(type='DenseDeepLabHead'),
    sssr=dict(type='BilinearUpsampler', align_corners=True),
    sisr=dict(type='DeconvDecoder'),
    loss_sisr=dict(type='ReconstructionLoss', loss_weight=0.5),
    loss_fa=dict(type='FeatureAffinityLoss', p=None, stride=16, loss_weight=0.5),
    fa_in='outputs',
)
