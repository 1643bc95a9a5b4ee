"""CPNet's head (arXiv 2004.01547), narrow, on HRNet-W18-small, CamVid, from scratch.

python tools/train.py configs/cpnet/hrnet18s_camvid.py

Only the head differs from configs/fcn/hrnet18s_camvid.py. Batch 8, 25 epochs, half-size images, for
two CPU cores. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/hrnet18s.py',
    '../_base_/datasets/camvid_half.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
ce = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    num_classes=11,
    backbone=dict(init_cfg=None),
    decode_head=dict(
        type='CPNetHead',
        channels=128,
        prior_channels=32,
        prior_size=(23, 30),  # 180x240 at the paper's stride of 8; (45, 60) has 4 times the pairs
        loss_decode=ce,
    ),
)
