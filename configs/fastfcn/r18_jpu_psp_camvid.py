"""FastFCN (arXiv 1903.11816) with a narrow PSPNet head, ResNet-18, CamVid, from scratch.

python tools/train.py configs/fastfcn/r18_jpu_psp_camvid.py

Batch 8, 25 epochs, half-size images, for two CPU cores. Results: README.md beside this file.
"""

_base_ = './r18_psp_camvid_os32.py'
model = dict(
    neck=dict(
        type='FastFCNJPU',
        in_channels=(128, 256, 512),
        mid_channels=128,
        norm_cfg=_base_.norm_cfg,
    )
)
