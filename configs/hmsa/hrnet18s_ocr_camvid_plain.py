"""HRNet-W18-small and a narrow OCR head alone, CamVid, from scratch: HMSA's baseline.

python tools/train.py configs/hmsa/hrnet18s_ocr_camvid_plain.py

Batch 8, 25 epochs, half-size images, for two CPU cores. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/hrnet18s.py',
    '../_base_/datasets/camvid_half.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=11,
    backbone=dict(init_cfg=None),
    decode_head=dict(
        type='OCRNetHead',
        channels=128,
        ocr_channels=64,
        loss_decode=dict(type='RMILoss'),
        loss_aux=dict(type='PixelSumBCELoss', loss_weight=0.4, loss_name='loss_aux'),
    ),
)
