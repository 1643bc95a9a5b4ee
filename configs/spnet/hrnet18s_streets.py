"""SPNet (arXiv 2003.13328): its head on HRNet-W18-small, the drawn streets, from scratch.

python tools/make_streets.py data/streets
python tools/train.py configs/spnet/hrnet18s_streets.py

Batch 8, 25 epochs, crop 256x512, for two CPU cores.
"""

_base_ = [
    '../_base_/models/hrnet18s.py',
    '../_base_/datasets/streets.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(init_cfg=None),
    decode_head=dict(type='SPNetHead', channels=128),
)
