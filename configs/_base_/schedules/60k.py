"""60k iterations of SGD, polynomial decay to 0: pixel contrast on PASCAL-Context and COCO-Stuff."""

_base_ = './80k.py'
train_cfg = dict(max_iters=60000, val_interval=6000)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, by_epoch=False, begin=0, end=60000)]
