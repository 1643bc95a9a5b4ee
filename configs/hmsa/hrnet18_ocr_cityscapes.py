"""HMSA (arXiv 2005.10821), HRNet-W18 and OCR, Cityscapes, for smaller GPUs.

bash tools/dist_train.sh configs/hmsa/hrnet18_ocr_cityscapes.py 8 --amp

Not in the paper; only the width differs from hrnet_ocr_cityscapes.py. Ours: not measured. Batch 8
(8 GPUs x 1), 175 epochs, crop 1024x2048.
"""

_base_ = './hrnet_ocr_cityscapes.py'
levels = dict(in_channels=[18, 36, 72, 144])
model = dict(
    levels=levels,
    head_level=levels,
    backbone=dict(
        extra=dict(
            stage2=dict(num_channels=(18, 36)),
            stage3=dict(num_channels=(18, 36, 72)),
            stage4=dict(num_channels=(18, 36, 72, 144)),
        ),
        init_cfg=dict(checkpoint='open-mmlab://msra/hrnetv2_w18'),
    ),
)
