"""DSRL's released network: ESPNetv2 of width 2.0 and two transposed convolutions, Cityscapes.

python tools/test.py configs/dsrl/espnetv2_cityscapes.py CONVERTED
python tools/train.py configs/dsrl/espnetv2_cityscapes.py --init ENCODER

Released weights: 60.61 mIoU on val, the network sees 256x512. Ours: not measured. ENCODER holds
converted weights of EdgeNets (see README.md beside this file). The training of DSRL was not
released. This is the first stage of ESPNetv2's recipe with a linear decay, batch 25, images shrunk
to 1024x512, crop 512x1024; the second stage is espnetv2_cityscapes_1024x2048.py.
"""

_base_ = [
    '../_base_/models/encoder_decoder.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/80k.py',
    '../_base_/default_runtime.py',
]
norm_cfg = dict(type='SyncBN', requires_grad=True)
initial_weights = "weights of EdgeNets' ESPNetv2 of width 2.0 (see configs/dsrl/README.md)"
model = dict(
    type='DSRL',
    num_classes=19,
    norm_cfg=norm_cfg,
    levels=dict(in_channels=[32, 128, 256, 512], in_index=[0, 1, 2, 3]),
    head_level=dict(in_channels=512, in_index=3),
    # the network was trained with multiples of 16; other sizes work too
    data_preprocessor=dict(size_divisor=32, test_cfg=dict(size_divisor=32)),
    backbone=dict(type='ESPNetV2', widen_factor=2.0, norm_cfg=norm_cfg),
    decode_head=dict(type='ESPNetV2Head', spare_classes=1),  # released: 20 outputs
    sssr=dict(type='DeconvUpsampler'),
    antialias=True,
)
half = dict(type='Resize', scale=(1024, 512))  # (width, height)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    half,  # in training as in the test, so that objects have the same size in both
    dict(type='RandomScaleCrop', crop_size=_base_.crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    half,
    dict(type='LoadSegMap'),  # after the resize: labels keep their size
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImage'),
    half,
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadSegMap')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(batch_size=25, dataset=dict(pipeline=train_pipeline))  # EdgeNets
auto_scale_lr = dict(base_batch_size=25)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=100, val_interval=10)
optim_wrapper = dict(
    optimizer=dict(lr=9e-3, weight_decay=4e-5),  # EdgeNets
    paramwise_cfg=dict(
        custom_keys=dict(decode_head=dict(lr_mult=10.0), sssr=dict(lr_mult=10.0))  # official
    ),
)
param_scheduler = [
    dict(
        type='PolyLRToEnd',
        power=1.0,
        eta_min=0,
        by_epoch=True,
        begin=0,
        end=100,
        convert_to_iter_based=True,
    )
]
paper = dict(miou=60.61, split='Cityscapes val', source='released weights, 256x512')
