"""240 epochs of SGD, learning rate lowered every iteration: Cityscapes in PyTorch-Encoding."""

_base_ = './120e.py'
train_cfg = dict(max_epochs=240)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=240, **_base_.per_iter)]
