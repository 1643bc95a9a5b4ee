"""HANet (arXiv 2003.05128): its head on EfficientNet-Lite0 from ImageNet weights, CamVid.

python tools/train.py configs/hanet/efflite0_camvid.py

Batch 8, 16 epochs, full images. Results: README.md beside this file.
"""

_base_ = '../fcn/efflite0_camvid.py'
model = dict(
    backbone=dict(output_stride=16),
    decode_head=dict(
        _delete_=True,
        type='HANetHead',
        channels=64,
        dilations=(6, 12, 18),  # output stride 16
        attention=dict(reduction=16),  # narrow levels
        loss_decode=_base_.ce,
    ),
)
first, second, *others, _ = _base_.train_pipeline
pipeline = [first, second, dict(type='AddRowPositions'), *others, dict(type='PackRowPositions')]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
