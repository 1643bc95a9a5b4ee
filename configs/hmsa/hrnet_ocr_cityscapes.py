"""HMSA (arXiv 2005.10821), HRNet-W48 and OCR, Cityscapes: the official recipe on the fine images.

bash tools/dist_train.sh configs/hmsa/hrnet_ocr_cityscapes.py 8 --amp

Paper, Table 2: 85.4 mIoU on val, from a Mapillary checkpoint (--init PATH); official code: 84.7.
Ours: not measured. Batch 8 (8 GPUs x 1), 175 epochs, crop 1024x2048.
"""

_base_ = [
    '../_base_/models/hrnet.py',
    '../_base_/datasets/cityscapes_class_uniform_1024x2048.py',
    '../_base_/schedules/175e.py',
    '../_base_/default_runtime.py',
]
bce = dict(type='PixelSumBCELoss')
model = dict(
    type='HMSA',
    decode_head=dict(
        type='HMSAHead',
        head=dict(
            type='OCRNetHead',
            loss_decode=dict(type='RMILoss'),
            loss_aux=dict(bce, loss_weight=0.4, loss_name='loss_aux'),
        ),
    ),
    train_scales=(0.5, 1.0),
    test_scales=(0.5, 1.0, 2.0),
    loss_single=dict(bce, loss_weight=0.05),  # official, not in the paper
)
paper = dict(miou=85.4, split='Cityscapes val', source='Table 2, from a Mapillary checkpoint')
