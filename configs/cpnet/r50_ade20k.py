"""CPNet (arXiv 2004.01547), ResNet-50, ADE20K, on MMSegmentation's schedule.

bash tools/dist_train.sh configs/cpnet/r50_ade20k.py 4 --amp
python tools/test.py configs/cpnet/r50_ade20k.py CHECKPOINT --tta

Paper, Table 4: 44.46 mIoU on val, scales and flip. Ours: not measured. Batch 16 (4 GPUs x 4), 160k
iterations, crop 512x512.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/80k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=150,
    data_preprocessor=dict(size=_base_.crop_size, size_divisor=None),  # pads crops to the prior
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
train_cfg = dict(max_iters=160000, val_interval=16000)
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=1e-4, by_epoch=False, begin=0, end=160000)
]
paper = dict(miou=44.46, split='ADE20K val', source='Table 4, scales and flip')
