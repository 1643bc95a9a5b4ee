"""CPNet (arXiv 2004.01547), ResNet-101, Cityscapes, on MMSegmentation's schedule.

bash tools/dist_train.sh configs/cpnet/r101_cityscapes.py 4 --amp
python tools/test.py configs/cpnet/r101_cityscapes.py CHECKPOINT --tta

Paper, Table 6: 81.3 mIoU on test, fine labels only, scales and flip. Ours: not measured. Batch 8 (4
GPUs x 2), 80k iterations, crop 512x1024.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/80k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='open-mmlab://resnet101_v1c')),
    decode_head=dict(type='CPNetHead', prior_size=(64, 128)),  # crop / 8
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
    test_cfg=dict(mode='slide', crop_size=(512, 1024), stride=(341, 683)),
)
tta_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale_factor=s, keep_ratio=True)
                for s in (0.5, 0.75, 1.0, 1.5, 1.75)
            ],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadSegMap')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(batch_size=2)
paper = dict(miou=81.3, split='Cityscapes test', source='Table 6, fine labels, scales and flip')
