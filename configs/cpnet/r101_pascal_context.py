"""CPNet (arXiv 2004.01547), ResNet-101, PASCAL-Context, on MMSegmentation's schedule.

bash tools/dist_train.sh configs/cpnet/r101_pascal_context.py 4 --amp
python tools/test.py configs/cpnet/r101_pascal_context.py CHECKPOINT --tta

Paper, Table 5: 53.9 mIoU on val. Ours: not measured. With background, as the other networks of the
table. Batch 16 (4 GPUs x 4), 80k iterations, crop 512x512.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/pascal_context_512x512.py',
    '../_base_/schedules/80k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=60,
    data_preprocessor=dict(size=_base_.crop_size, size_divisor=None),  # pads crops to the prior
    backbone=dict(depth=101, init_cfg=dict(checkpoint='open-mmlab://resnet101_v1c')),
    decode_head=dict(type='CPNetHead', prior_size=64),  # crop / 8
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
    ),
    # windows have the size of the training crop, and smaller images are padded: the prior fits
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
tta_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(int(2048 * s), int(512 * s)), keep_ratio=True)
                for s in (0.5, 0.75, 1.0, 1.5, 1.75)
            ],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadSegMap')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(batch_size=4)
paper = dict(miou=53.9, split='PascalContext val', source='Table 5')
