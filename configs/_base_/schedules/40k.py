"""40k iterations of SGD, polynomial decay to 0, as pixel contrast (arXiv 2101.11939) trains."""

_base_ = './80k.py'
train_cfg = dict(max_iters=40000, val_interval=4000)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, by_epoch=False, begin=0, end=40000)]
