"""DSRL's released network: ESPNetv2 of width 2.0 and two transposed convolutions, Cityscapes.

python tools/test.py configs/dsrl/espnetv2_cityscapes.py CONVERTED
python tools/train.py configs/dsrl/espnetv2_cityscapes.py

Released weights: 66.50 mIoU on val if the network sees 512x1024, 60.61 if it sees 256x512 (see
README.md beside this file). Ours: not measured. The training was not released. This is the recipe
of ESPNetv2 at 256x512 with a linear decay, batch 25, crop 512x1024.
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
train_dataloader = dict(batch_size=25)
auto_scale_lr = dict(base_batch_size=25)
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=100, val_interval=10)
optim_wrapper = dict(
    optimizer=dict(lr=9e-3, weight_decay=4e-5),
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
paper = dict(miou=66.50, split='Cityscapes val', source='released weights')
