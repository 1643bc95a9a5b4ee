"""HMSA (arXiv 2005.10821), HRNet-W48 and OCR, CamVid, from scratch, for a GPU.

python tools/train.py configs/hmsa/hrnet_ocr_camvid.py --amp

Batch 8, 200 epochs, crop 360x480. Ours: not measured.
"""

_base_ = [
    '../_base_/models/hrnet.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/camvid.py',
    '../_base_/default_runtime.py',
]
bce = dict(type='PixelSumBCELoss')
model = dict(
    num_classes=11,
    type='HMSA',
    backbone=dict(init_cfg=None),
    decode_head=dict(
        type='HMSAHead',
        head=dict(
            type='OCRNetHead',
            loss_decode=dict(type='RMILoss'),
            loss_aux=dict(bce, loss_weight=0.4, loss_name='loss_aux'),
        ),
    ),
    loss_single=dict(bce, loss_weight=0.05),
)
