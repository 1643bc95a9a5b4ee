"""FastFCN (arXiv 1903.11816) with EncNet's head, ResNet-50, PASCAL-Context: the released recipe.

bash tools/dist_train.sh configs/fastfcn/r50_jpu_encnet_pascal_context.py 4 --init IMAGENET.pth

Paper: 51.05 mIoU on val, 59 classes, one scale; 49.91 with a dilated backbone.
Ours: not measured. Batch 16 (4 GPUs x 4), 80 epochs, crop 480x480.
"""

_base_ = [
    '../_base_/models/r50-jpu.py',
    '../_base_/datasets/pascal_context59_encoding_480x480.py',
    '../_base_/schedules/120e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=59,
    decode_head=dict(type='FastFCNEncHead'),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,  # stage 3, stride 16
        channels=256,
        num_convs=1,
        concat_input=False,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.2),
    ),
    test_cfg=dict(mode='slide', crop_size=(480, 480), stride=(320, 320)),
)
train_dataloader = dict(batch_size=4)
ten_times = dict(lr_mult=10.0)
optim_wrapper = dict(
    optimizer=dict(lr=0.001),  # official, for 16 images
    paramwise_cfg=dict(custom_keys=dict(neck=ten_times, head=ten_times)),
)
train_cfg = dict(max_epochs=80)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=80, **_base_.per_iter)]
paper = dict(miou=51.05, split='PascalContext59 val', source='paper, one scale')
