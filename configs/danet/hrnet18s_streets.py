"""DANet's head (arXiv 1809.02983), narrow, on HRNet-W18-small, the drawn streets, from scratch.

python tools/make_streets.py data/streets
python tools/train.py configs/danet/hrnet18s_streets.py

Only the head differs from configs/fcn/hrnet18s_streets.py. Batch 8, 25 epochs, crop 256x512, for
two CPU cores.
"""

_base_ = [
    '../_base_/models/hrnet18s.py',
    '../_base_/datasets/streets.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
ce = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    backbone=dict(init_cfg=None),
    decode_head=dict(type='DANetHead', channels=64, loss_decode=ce),
)
