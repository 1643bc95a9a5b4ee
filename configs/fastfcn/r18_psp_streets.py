"""ResNet-18 dilated to output stride 8 and a narrow PSPNet head, the drawn streets, from scratch.

python tools/make_streets.py data/streets
python tools/train.py configs/fastfcn/r18_psp_streets.py

FastFCN replaces this dilated backbone. Batch 8, 25 epochs, crop 256x512, for two CPU cores.
"""

_base_ = [
    '../_base_/models/r18-d8.py',
    '../_base_/datasets/streets.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(init_cfg=None),
    decode_head=dict(
        type='PSPHead',
        channels=128,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
)
