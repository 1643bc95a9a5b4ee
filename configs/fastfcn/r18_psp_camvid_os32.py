"""The model of r18_psp_camvid.py without dilation, at output stride 32: FastFCN without its neck.

python tools/train.py configs/fastfcn/r18_psp_camvid_os32.py
"""

_base_ = './r18_psp_camvid.py'
model = dict(backbone=dict(strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)))
