"""DSRL (CVPR 2020), HRNet-W18-small and a 3x3 convolution, the drawn streets, from scratch.

python tools/make_streets.py data/streets
python tools/train.py configs/dsrl/hrnet18s_streets.py

Batch 8, 25 epochs, crop 256x512, which the network sees at 128x256, for two CPU cores.
"""

_base_ = [
    '../_base_/models/hrnet18s.py',
    '../_base_/datasets/streets.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
ce = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    type='DSRL',
    backbone=dict(init_cfg=None),
    decode_head=dict(type='FCNHead', channels=128, num_convs=1, loss_decode=ce),
)
