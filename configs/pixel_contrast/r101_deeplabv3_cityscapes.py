"""Pixel contrast (arXiv 2101.11939), DeepLabV3 on ResNet-101, Cityscapes: the released recipe.

bash tools/dist_train.sh configs/pixel_contrast/r101_deeplabv3_cityscapes.py 4 \
    --init IMAGENET.pth --amp

Released: 77.67 mIoU on val, single scale (its README). Ours: not measured. Batch 8 (4 GPUs x 2),
40k iterations, crop 512x1024. The host has no weights for this stem, which ends in 128 channels.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/cityscapes_openseg_512x1024.py',
    '../_base_/schedules/40k.py',
    '../_base_/default_runtime.py',
]
ce = dict(
    type='WeightedCELoss',
    class_weight=[
        *(0.8373, 0.9180, 0.8660, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
        *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
    ],
)
initial_weights = (
    'ResNet-101 for ImageNet with a stem of 128 channels (resnet101-imagenet.pth of '
    'CSAILVision/semantic-segmentation-pytorch, read by convert_checkpoint.py pixel_contrast)'
)
model = dict(
    # as released: blue, green, red, with the statistics of red, green, blue
    data_preprocessor=dict(bgr_to_rgb=False),
    backbone=dict(type='OpensegResNet', depth=101, init_cfg=None),
    decode_head=dict(
        type='PixelContrastHead',
        head=dict(type='OpensegASPPHead', align_corners=True, loss_decode=ce),
        loss_contrast=dict(type='PixelContrastLoss'),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.0,
        align_corners=True,
        loss_decode=dict(ce, loss_weight=0.4),
    ),
)
paper = dict(miou=77.67, split='Cityscapes val', source='released README, one scale')
