"""OCRNet's head, narrow, on EfficientNet-Lite0 from ImageNet weights, CamVid: HMSA's baseline.

python tools/train.py configs/hmsa/efflite0_camvid_plain.py

Batch 8, 16 epochs, full images. Results: README.md beside this file.
"""

_base_ = '../fcn/efflite0_camvid.py'
bce = dict(type='PixelSumBCELoss')
width = 32  # of each level, because all enter the head at stride 4
model = dict(
    neck=dict(
        type='FPN',
        in_channels=_base_.model.levels.in_channels,
        out_channels=width,
        num_outs=4,
        norm_cfg=_base_.norm_cfg,
    ),
    levels=dict(in_channels=[width] * 4),
    head_level=dict(in_channels=[width] * 3),
    decode_head=dict(
        _delete_=True,
        type='OCRNetHead',
        channels=64,
        ocr_channels=32,
        loss_decode=dict(type='RMILoss'),
        loss_aux=dict(bce, loss_weight=0.4, loss_name='loss_aux'),
    ),
)
