"""CPNet's head (arXiv 2004.01547), narrow, on HRNet-W18-small, the drawn streets, from scratch.

python tools/make_streets.py data/streets
python tools/train.py configs/cpnet/hrnet18s_streets.py

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
    decode_head=dict(
        type='CPNetHead',
        channels=128,
        prior_channels=32,
        prior_size=(32, 64),  # crop 256x512 at the paper's stride of 8
        loss_decode=ce,
    ),
)
