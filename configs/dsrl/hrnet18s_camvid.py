"""DSRL (CVPR 2020), HRNet-W18-small and a 3x3 convolution, CamVid, from scratch.

python tools/train.py configs/dsrl/hrnet18s_camvid.py

The network of configs/fcn/hrnet18s_camvid.py. It sees 240x180 like there, but predicts 480x360.
Batch 8, 25 epochs, for two CPU cores. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/hrnet18s.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
ce = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    num_classes=11,
    type='DSRL',
    backbone=dict(init_cfg=None),
    decode_head=dict(type='FCNHead', channels=128, num_convs=1, loss_decode=ce),
)
