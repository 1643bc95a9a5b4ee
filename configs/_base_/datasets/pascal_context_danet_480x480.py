"""PASCAL-Context, 60 classes with background, as DANet's code of 2018 augments; crop 480x480.

--tta is the protocol of this code with several scales: eight scales, flips, and windows whose
stride is half the crop.
"""

_base_ = './pascal_context_encoding_480x480.py'
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomFlip', prob=0.5),
    # short side from 390 to 1040, long side of any length
    dict(type='RandomResize', scale=(52000, 520), ratio_range=(0.75, 2.0), keep_ratio=True),
    dict(type='Pad', size=_base_.crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
tta_model = dict(stride=240, scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.2))
