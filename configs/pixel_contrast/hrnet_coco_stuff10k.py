"""Pixel contrast (arXiv 2101.11939), HRNet-W48, COCO-Stuff 10k.

bash tools/dist_train.sh configs/pixel_contrast/hrnet_coco_stuff10k.py 4 --amp

Paper: 39.3 mIoU on test (as others cite it). No weights were released.
Ours: not measured. Temperature and iterations are released; the crop is PASCAL-Context's, rate and
batch are Cityscapes'. Batch 8 (4 GPUs x 2), 60k iterations, crop 520x520.
"""

_base_ = [
    '../_base_/models/hrnet.py',
    '../_base_/datasets/coco_stuff10k_openseg_520x520.py',
    '../_base_/schedules/60k.py',
    '../_base_/default_runtime.py',
]
ce = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    num_classes=171,
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
        loss_contrast=dict(type='PixelContrastLoss', temperature=0.07),
    ),
)
paper = dict(miou=39.3, split='COCOStuff test', source='paper, as others cite it')
