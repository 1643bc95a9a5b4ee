"""120 epochs of SGD, learning rate lowered every iteration, as PyTorch-Encoding trains ADE20K."""

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=120, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
)
per_iter = dict(by_epoch=True, convert_to_iter_based=True)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=120, **per_iter)]
