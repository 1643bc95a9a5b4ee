"""Pixel contrast (arXiv 2101.11939), HRNet-W48 and OCR, ADE20K, 150 classes.

bash tools/dist_train.sh configs/pixel_contrast/hrnet_ocr_ade20k.py 4 --amp

No recipe was released. The temperature is that of Pascal Context and COCO-Stuff, all else is usual
in MMSegmentation. Ours: not measured. Batch 16 (4 GPUs x 4), 80k iterations, crop 512x512.
"""

_base_ = [
    '../_base_/models/hrnet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/80k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=150,
    data_preprocessor=dict(size=_base_.crop_size, size_divisor=None),  # pads crops, as the host
    backbone=dict(align_corners=True),
    decode_head=dict(
        type='PixelContrastHead',
        head=dict(type='OpensegOCRHead', align_corners=True),
        loss_contrast=dict(type='PixelContrastLoss', temperature=0.07, warmup_iters=10000),
    ),
)
train_dataloader = dict(batch_size=4)
