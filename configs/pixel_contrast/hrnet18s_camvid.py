"""Pixel contrast (arXiv 2101.11939), HRNet-W18-small, CamVid, from scratch, without memory.

python tools/train.py configs/pixel_contrast/hrnet18s_camvid.py

Only the contrast differs from configs/fcn/hrnet18s_camvid.py. Batch 8, 25 epochs, half-size images,
for two CPU cores. Results: README.md beside this file.
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
        type='PixelContrastHead',
        head=dict(type='FCNHead', channels=128, num_convs=1, loss_decode=ce),
        proj_channels=64,
        # 0.07 as released for CamVid; warm-up is an eighth of the 1125 iterations
        loss_contrast=dict(type='PixelContrastLoss', temperature=0.07, warmup_iters=140),
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='EmbeddingsHook')]
