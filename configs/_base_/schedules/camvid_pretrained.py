"""The common CamVid budget from weights for ImageNet: 16 epochs of batch 8, on full images.

For one CPU core. The backbone learns at half the rate.
"""

channels_last = True  # faster on a CPU
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=16, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=1e-2),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.5))),
)
per_iter = dict(by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, **per_iter),
    dict(type='PolyLRToEnd', power=0.9, begin=1, end=16, **per_iter),
]
