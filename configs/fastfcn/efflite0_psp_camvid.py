"""EfficientNet-Lite0 dilated to output stride 16 and a narrow PSPNet head, CamVid.

python tools/train.py configs/fastfcn/efflite0_psp_camvid.py

FastFCN replaces this dilated backbone. Output stride 8 is too slow for a CPU. Batch 8, 12 epochs,
full images. Results: README.md beside this file.
"""

_base_ = '../fcn/efflite0_camvid.py'
model = dict(
    backbone=dict(output_stride=16),
    head_level=dict(_delete_=True, in_channels=320, in_index=3),
    decode_head=dict(
        _delete_=True, type='PSPHead', channels=96, align_corners=True, loss_decode=_base_.ce
    ),
)
