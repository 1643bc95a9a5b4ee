"""160k iterations of SGD with a warm-up and a polynomial decay, for PP-LiteSeg.

The text of its paper (arXiv 2204.02681) was not at hand: rate and warm-up are not checked.
"""

_base_ = './80k.py'
train_cfg = dict(max_iters=160000, val_interval=16000)
optim_wrapper = dict(optimizer=dict(lr=0.005))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=1000),
    dict(type='PolyLRToEnd', power=0.9, by_epoch=False, begin=1000, end=160000),
]
