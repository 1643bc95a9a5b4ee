"""SPNet (arXiv 2003.13328), ResNet-101, PASCAL-Context with background.

bash tools/dist_train.sh configs/spnet/r101_pascal_context.py 4 --init IMAGENET.pth
python tools/test.py configs/spnet/r101_pascal_context.py CHECKPOINT --tta

Paper: 54.5 mIoU on val, 60 classes (as others cite it). Ours: not measured. No recipe was released:
rate and epochs are the paper's (as others cite it), all else is ADE20K's. Batch 16 (4 GPUs x 4),
100 epochs, crop 480x480.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/pascal_context_semseg_480x480.py',
    '../_base_/schedules/120e.py',
    '../_base_/default_runtime.py',
]
initial_weights = (
    'ResNet-101 for ImageNet of PyTorch-Encoding (resnet101-2a57e44d.pth of '
    'zhanghang1989/PyTorch-Encoding, read by convert_checkpoint.py spnet)'
)
model = dict(
    num_classes=60,
    backbone=dict(_delete_=True, type='SPNetResNet', depth=101, norm_cfg=_base_.norm_cfg),
    decode_head=dict(type='SPNetHead'),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4),
    ),
    test_cfg=dict(mode='slide', crop_size=(480, 480), stride=(320, 320)),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(
    optimizer=dict(lr=0.001),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))),
)
train_cfg = dict(max_epochs=100)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=100, **_base_.per_iter)]
paper = dict(miou=54.5, split='PascalContext val', source='paper, as others cite it, 60 classes')
