"""efflite0_psp_camvid.py without dilation, at output stride 32: FastFCN without its neck.

python tools/train.py configs/fastfcn/efflite0_psp_camvid_os32.py

Results: README.md beside this file.
"""

_base_ = './efflite0_psp_camvid.py'
model = dict(backbone=dict(output_stride=32))
