"""180 epochs of SGD, learning rate lowered every iteration: ADE20K in DANet's code of 2020."""

_base_ = './120e.py'
train_cfg = dict(max_epochs=180)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=180, **_base_.per_iter)]
