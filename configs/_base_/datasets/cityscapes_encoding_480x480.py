"""Cityscapes with the augmentation of PyTorch-Encoding, on which FastFCN is built; crop 480x480.

Images are tested with the long side at 520. --tta is the released protocol: scales and flips.
"""

_base_ = './cityscapes.py'
crop_size = (480, 480)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomFlip', prob=0.5),
    # short side from 260 to 1040, long side of any length
    dict(type='RandomResize', scale=(52000, 520), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='Pad', size=crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(
        type='RandomApply',
        prob=0.5,
        transforms=[dict(type='RandomGaussianBlur', sigma_range=(0, 1))],
    ),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(520, 520), keep_ratio=True),
    dict(type='LoadSegMap'),  # after the resize: labels keep their size
    dict(type='PackSegInputs'),
]
tta_pipeline = [dict(type='LoadImage'), dict(type='LoadSegMap'), dict(type='PackSegInputs')]
tta_model = dict(
    type='EncodingTTAModel',
    base_size=520,
    crop_size=480,
    scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25),
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=16)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
