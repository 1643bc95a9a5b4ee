"""The segmentor of r50_fpn_deepglobe.py: ResNet-50 and FPN at 508x508, DeepGlobe.

python tools/train.py configs/magnet/r50_fpn_deepglobe_plain.py

Whole images shrunk to 508x508. Released code: 67.22 mIoU on test. Ours: not measured. Batch 12 per
GPU; the number of GPUs is not known, here it is 1. 484 epochs, crops of 612, 1224 and 2448 pixels.
"""

_base_ = [
    '../_base_/models/encoder_decoder.py',
    '../_base_/datasets/deepglobe.py',
    '../_base_/schedules/484e.py',
    '../_base_/default_runtime.py',
]
norm_cfg = dict(type='SyncBN', requires_grad=True, momentum=0.01)
model = dict(
    num_classes=7,
    norm_cfg=norm_cfg,
    levels=dict(in_channels=[256] * 4, in_index=[0, 1, 2, 3]),
    head_level=dict(in_channels=256, in_index=0),
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
        ),
    ),
    neck=dict(
        type='FPN',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        num_outs=4,
        upsample_cfg=dict(mode='bilinear', align_corners=False),
    ),
    decode_head=dict(type='MagNetFPNHead'),
)
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(508, 508)),
    _base_.load_mask,  # after the resize: labels keep their size
    dict(type='PackSegInputs'),
]
tta_pipeline = None  # the network is trained for this size only
train_dataloader = dict(batch_size=12)
auto_scale_lr = dict(base_batch_size=12)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
paper = dict(miou=67.22, split='DeepGlobe test', source='released weights')
