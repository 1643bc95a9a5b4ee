"""HRNet-W18-small and a 3x3 convolution, CamVid, from scratch: the baseline of several papers.

python tools/train.py configs/fcn/hrnet18s_camvid.py

Batch 8, 25 epochs, half-size images, for two CPU cores. Results: README.md beside this file.
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
    decode_head=dict(type='FCNHead', channels=128, num_convs=1, loss_decode=ce),
)
