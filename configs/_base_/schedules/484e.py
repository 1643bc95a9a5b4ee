"""484 epochs of SGD, learning rate lowered every iteration, as HRNet trains Cityscapes."""

_base_ = './120e.py'
train_cfg = dict(max_epochs=484)
optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=484, **_base_.per_iter)]
