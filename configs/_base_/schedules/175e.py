"""175 epochs of SGD, learning rate lowered once an epoch (HMSA's official Cityscapes recipe)."""

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=175, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    # official; the paper writes a weight decay of 5e-4
    optimizer=dict(type='SGD', lr=5e-3, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [dict(type='PolyLRToEnd', power=2.0, by_epoch=True, begin=0, end=175)]
