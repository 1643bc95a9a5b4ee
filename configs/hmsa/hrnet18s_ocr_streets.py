"""HMSA (arXiv 2005.10821), HRNet-W18-small and a narrow OCR head, the drawn streets, from scratch.

python tools/make_streets.py data/streets
python tools/train.py configs/hmsa/hrnet18s_ocr_streets.py

Batch 8, 25 epochs, crop 256x512.
"""

_base_ = [
    '../_base_/models/hrnet18s.py',
    '../_base_/datasets/streets_class_uniform.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
bce = dict(type='PixelSumBCELoss')
model = dict(
    type='HMSA',
    backbone=dict(init_cfg=None),
    decode_head=dict(
        type='HMSAHead',
        attention_channels=64,
        head=dict(
            type='OCRNetHead',
            channels=128,
            ocr_channels=64,
            loss_decode=dict(type='RMILoss'),
            loss_aux=dict(bce, loss_weight=0.4, loss_name='loss_aux'),
        ),
    ),
    test_scales=(0.5, 1.0),
    loss_single=dict(bce, loss_weight=0.05),
)
