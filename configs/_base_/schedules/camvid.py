"""The common CamVid budget of all papers' comparisons: 200 epochs of batch 8, from scratch.

Results on the pages of the papers were measured when the decay ended one iteration earlier.
"""

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01))
per_iter = dict(by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, **per_iter),
    dict(type='PolyLRToEnd', power=0.9, begin=1, end=200, **per_iter),
]
