"""Pixel contrast (arXiv 2101.11939), HRNet-W48, PASCAL-Context.

bash tools/dist_train.sh configs/pixel_contrast/hrnet_pascal_context.py 4 --amp

Paper: 55.1 mIoU on val (as others cite it), 59 classes. No weights were released.
Ours: not measured. Temperature, iterations and crop are released; rate and batch are Cityscapes'.
Batch 8 (4 GPUs x 2), 60k iterations, crop 520x520.
"""

_base_ = [
    '../_base_/models/hrnet.py',
    '../_base_/datasets/pascal_context59_openseg_520x520.py',
    '../_base_/schedules/60k.py',
    '../_base_/default_runtime.py',
]
ce = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    num_classes=59,
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
paper = dict(miou=55.1, split='PascalContext59 val', source='paper, as others cite it')
