"""HMSA (arXiv 2005.10821), HRNet-W48 and OCR, Mapillary Vistas, 65 classes: the official script.

bash tools/dist_train.sh configs/hmsa/hrnet_ocr_mapillary.py 8 --amp
python tools/test.py configs/hmsa/hrnet_ocr_mapillary.py CHECKPOINT --tta

Paper: 61.1 mIoU on val, four scales and flip; official weights: 61.05. Ours: not measured. Batch 16
(8 GPUs x 2; the paper writes 32 GPUs x 1 and a learning rate of 0.02), 200 epochs, crop 1024x1024.
"""

_base_ = [
    '../_base_/models/hrnet.py',
    '../_base_/datasets/mapillary_class_uniform_1024x1024.py',
    '../_base_/schedules/175e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=65,
    type='HMSA',
    decode_head=dict(
        type='HMSAHead',
        head=dict(
            type='OCRNetHead',
            loss_decode=dict(type='RMILoss'),
            loss_aux=dict(type='PixelSumBCELoss', loss_weight=0.4, loss_name='loss_aux'),
        ),
    ),
    train_scales=(0.5, 1.0),
    test_scales=(0.25, 0.5, 1.0, 2.0),
)
train_cfg = dict(max_epochs=200)
param_scheduler = [dict(type='PolyLRToEnd', power=1.0, by_epoch=True, begin=0, end=200)]
paper = dict(miou=61.1, split='Mapillary65 val', source='paper, four scales and flip')
