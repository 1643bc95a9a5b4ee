"""HANet (arXiv 2003.05128), DeepLabV3+ on MobileNetV2 of output stride 16, Cityscapes.

python tools/train.py configs/hanet/mobilenetv2_deeplabv3plus_cityscapes.py

Paper: 74.96 mIoU on val, 73.93 without gates (as others cite it). Ours: not measured. Batch 8 (1
GPU x 8), 40k iterations, crop 768x768.
"""

_base_ = [
    '../_base_/models/mobilenetv2-d8.py',
    '../_base_/datasets/cityscapes_rows_768x768.py',
    '../_base_/schedules/40k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    levels=dict(in_channels=[32, 320, 1280], in_index=[0, 1, 2]),
    head_level=dict(in_channels=1280, in_index=2),
    backbone=dict(
        type='FullMobileNetV2',
        strides=(1, 2, 2, 2, 1, 1, 1),
        dilations=(1, 1, 1, 1, 1, 2, 1),
        out_indices=(2, 6, 7),
    ),
    decode_head=dict(
        type='HANetHead',
        dilations=(6, 12, 18),
        attention=dict(reduction=16, position_noise=0.3),
    ),
    auxiliary_head=dict(type='HANetAuxHead', in_channels=320, in_index=1),
)
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(
    # official: 5e-4, and 1e-4 for the gates
    paramwise_cfg=dict(custom_keys=dict(height_attention=dict(decay_mult=0.2)))
)
paper = dict(miou=74.96, split='Cityscapes val', source='paper, as others cite it')
