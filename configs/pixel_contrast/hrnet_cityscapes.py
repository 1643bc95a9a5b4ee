"""Pixel contrast (arXiv 2101.11939), HRNet-W48, Cityscapes: the released recipe, without memory.

bash tools/dist_train.sh configs/pixel_contrast/hrnet_cityscapes.py 4 --amp

Released: 80.18 mIoU on val, single scale, 79.27 without contrast (its README). Ours: not measured.
Batch 8 (4 GPUs x 2), 40k iterations, crop 512x1024.
"""

_base_ = [
    '../_base_/models/hrnet.py',
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
model = dict(
    # as released: blue, green, red, with the statistics of red, green, blue
    data_preprocessor=dict(bgr_to_rgb=False),
    backbone=dict(align_corners=True),
    decode_head=dict(
        type='PixelContrastHead',
        head=dict(
            type='FCNHead',
            channels=720,
            num_convs=1,
            concat_input=False,
            align_corners=True,
            loss_decode=ce,
        ),
        loss_contrast=dict(type='PixelContrastLoss'),
    ),
)
paper = dict(miou=80.18, split='Cityscapes val', source='released README, one scale')
