"""Pixel contrast (arXiv 2101.11939), HRNet-W18-small, the drawn streets, without memory.

python tools/make_streets.py data/streets
python tools/train.py configs/pixel_contrast/hrnet18s_streets.py

Only the contrast differs from configs/fcn/hrnet18s_streets.py. Batch 8, 25 epochs, crop 256x512.
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
        type='PixelContrastHead',
        head=dict(type='FCNHead', channels=128, num_convs=1, loss_decode=ce),
        proj_channels=64,
        # warm-up is an eighth of the 1550 iterations
        loss_contrast=dict(type='PixelContrastLoss', temperature=0.07, warmup_iters=190),
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='EmbeddingsHook')]
