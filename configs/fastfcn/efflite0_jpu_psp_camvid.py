"""FastFCN (arXiv 1903.11816) with a narrow PSPNet head, EfficientNet-Lite0, CamVid.

python tools/train.py configs/fastfcn/efflite0_jpu_psp_camvid.py

Batch 8, 12 epochs, full images. Results: README.md beside this file.
"""

_base_ = './efflite0_psp_camvid_os32.py'
model = dict(
    neck=dict(
        type='FastFCNJPU',
        in_channels=(40, 112, 320),
        mid_channels=64,
        norm_cfg=_base_.norm_cfg,
    ),
    levels=dict(in_channels=[24, 40, 112, 256]),
    head_level=dict(in_channels=256),
)
