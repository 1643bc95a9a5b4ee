"""10 epochs of SGD, polynomial decay to 0, a tenth of the rate for the backbone, as PSSL trains.

The released recipe uses the weights after epoch 5 of 10, so every epoch leaves a checkpoint.
"""

_base_ = './120e.py'
train_cfg = dict(max_epochs=10, val_interval=10)
optim_wrapper = dict(
    optimizer=dict(weight_decay=5e-4),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=10, **_base_.per_iter)]
