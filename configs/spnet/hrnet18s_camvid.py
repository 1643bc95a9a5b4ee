"""SPNet (arXiv 2003.13328): its head on HRNet-W18-small, CamVid, from scratch.

python tools/train.py configs/spnet/hrnet18s_camvid.py

Batch 8, 25 epochs, half-size images, for two CPU cores. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/hrnet18s.py',
    '../_base_/datasets/camvid_half.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=11,
    backbone=dict(init_cfg=None),
    decode_head=dict(type='SPNetHead', channels=128),
)
