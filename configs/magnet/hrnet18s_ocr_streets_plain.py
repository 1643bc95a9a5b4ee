"""The segmentor of hrnet18s_ocr_streets.py: HRNet-W18-small and a narrow OCR head, from scratch.

python tools/make_streets.py data/streets
python tools/train.py configs/magnet/hrnet18s_ocr_streets_plain.py

Images of 512x256 shrunk to 128x64. Batch 8, 25 epochs, crops at a quarter to full scale.
"""

_base_ = [
    '../_base_/models/hrnet18s.py',
    '../_base_/datasets/streets.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(init_cfg=None),
    decode_head=dict(type='OCRNetHead', channels=128, ocr_channels=64),
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomScaleCrop', crop_size=(64, 128), ratio_range=(0.25, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(128, 64)),
    dict(type='LoadSegMap'),  # after the resize: labels keep their size
    dict(type='PackSegInputs'),
]
tta_pipeline = None  # the network is trained for this size only
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
