"""HRNet-W48 and OCR alone, Mapillary Vistas: the single-scale model from which HMSA starts.

bash tools/dist_train.sh configs/hmsa/hrnet_ocr_mapillary_plain.py 8 --amp
python tools/test.py configs/hmsa/hrnet_ocr_mapillary_plain.py CHECKPOINT --tta

Its checkpoint is the --init of hrnet_ocr_cityscapes.py and of the other Cityscapes configs. The
recipe is that of hrnet_ocr_mapillary.py; none was released for this model, and no number. Ours: not
measured. Batch 16 (8 GPUs x 2), 200 epochs, crop 1024x1024.
"""

_base_ = [
    '../_base_/models/hrnet.py',
    '../_base_/datasets/mapillary_class_uniform_1024x1024.py',
    '../_base_/schedules/175e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=65,
    decode_head=dict(
        type='OCRNetHead',
        loss_decode=dict(type='RMILoss'),
        loss_aux=dict(type='PixelSumBCELoss', loss_weight=0.4, loss_name='loss_aux'),
    ),
)
train_cfg = dict(max_epochs=200)
param_scheduler = [dict(type='PolyLRToEnd', power=1.0, by_epoch=True, begin=0, end=200)]
