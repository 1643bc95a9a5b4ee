"""ResNet-18 dilated to output stride 8 and a narrow PSPNet head, CamVid, from scratch.

python tools/train.py configs/fastfcn/r18_psp_camvid.py

FastFCN replaces this dilated backbone. Batch 8, 25 epochs, half-size images, for two CPU cores.
Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/r18-d8.py',
    '../_base_/datasets/camvid_half.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=11,
    backbone=dict(init_cfg=None),
    decode_head=dict(
        type='PSPHead',
        channels=128,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
)
