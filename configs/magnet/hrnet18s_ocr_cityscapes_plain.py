"""The segmentor of hrnet18s_ocr_cityscapes.py: HRNet-W18-small at stride 1 and OCR, Cityscapes.

python tools/train.py configs/magnet/hrnet18s_ocr_cityscapes_plain.py

Images shrunk to 256x128. Released code: 63.24 mIoU on val. Ours: not measured. Batch 12 per
GPU; the number of GPUs is not known, here it is 1. 484 epochs.
"""

_base_ = [
    '../_base_/models/hrnet18s.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/484e.py',
    '../_base_/default_runtime.py',
]
# official, from HRNet's release
class_weight = [0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023]
class_weight += [0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507]
ce = dict(type='WeightedCELoss', class_weight=class_weight)
model = dict(
    backbone=dict(align_corners=True, stem_strides=(1, 1), norm_cfg=dict(momentum=0.01)),
    decode_head=dict(
        type='MagNetOCRHead',
        loss_decode=ce,
        loss_aux=dict(ce, loss_weight=0.4, loss_name='loss_aux'),
    ),
)
shrink = dict(type='Resize', scale=(256, 128))
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    shrink,
    dict(type='RandomScaleCrop', crop_size=(128, 256), ratio_range=(0.5, 2.1)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    shrink,
    dict(type='LoadSegMap'),  # after the resize: labels keep their size
    dict(type='PackSegInputs'),
]
tta_pipeline = None  # the network is trained for this size only
train_dataloader = dict(batch_size=12, dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=12)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
paper = dict(miou=63.24, split='Cityscapes val', source='released weights')
