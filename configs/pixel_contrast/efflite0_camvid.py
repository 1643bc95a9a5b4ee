"""Pixel contrast (arXiv 2101.11939) on EfficientNet-Lite0, CamVid, without memory.

python tools/train.py configs/pixel_contrast/efflite0_camvid.py

Only the contrast differs from configs/fcn/efflite0_camvid.py. Results: README.md beside this file.
"""

_base_ = '../fcn/efflite0_camvid.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='PixelContrastHead',
        head=_base_.model.decode_head,
        proj_channels=64,
        proj_index=[1, 2, 3],  # stride 8
        # 0.07 as released for CamVid; warm-up is an eighth of the 720 iterations
        loss_contrast=dict(type='PixelContrastLoss', temperature=0.07, warmup_iters=90),
    )
)
custom_hooks = [*_base_.custom_hooks, dict(type='EmbeddingsHook')]
