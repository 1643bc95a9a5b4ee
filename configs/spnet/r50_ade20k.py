"""SPNet (arXiv 2003.13328), ResNet-50, ADE20K: the released recipe.

bash tools/dist_train.sh configs/spnet/r50_ade20k.py 4 --init IMAGENET.pth
python tools/test.py configs/spnet/r50_ade20k.py CHECKPOINT --tta

Paper: 45.03 mIoU on val, six scales and flip (as others cite it, not verified).
Ours: not measured. Batch 16 (4 GPUs x 4), 120 epochs, crop 480x480.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/ade20k_semseg_480x480.py',
    '../_base_/schedules/120e.py',
    '../_base_/default_runtime.py',
]
initial_weights = (
    'ResNet-50 or -101 for ImageNet of PyTorch-Encoding (resnet50-25c4b509.pth, '
    'resnet101-2a57e44d.pth of zhanghang1989/PyTorch-Encoding, read by convert_checkpoint.py spnet)'
)
model = dict(
    num_classes=150,
    backbone=dict(_delete_=True, type='SPNetResNet', depth=50, norm_cfg=_base_.norm_cfg),
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
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))))
paper = dict(miou=45.03, split='ADE20K val', source='paper, as others cite it, six scales and flip')
