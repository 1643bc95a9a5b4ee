"""FastFCN (arXiv 1903.11816) with a narrow PSPNet head, ResNet-18, the drawn streets, from scratch.

python tools/make_streets.py data/streets
python tools/train.py configs/fastfcn/r18_jpu_psp_streets.py

Batch 8, 25 epochs, crop 256x512, for two CPU cores.
"""

_base_ = './r18_psp_streets.py'
model = dict(
    backbone=dict(strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)),
    neck=dict(
        type='FastFCNJPU',
        in_channels=(128, 256, 512),
        mid_channels=128,
        norm_cfg=_base_.norm_cfg,
    ),
)
