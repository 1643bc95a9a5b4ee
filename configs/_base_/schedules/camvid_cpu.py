"""The common CamVid budget without a GPU: 25 epochs of batch 8, from scratch, for half-size images.

For at most 30 minutes per model on two cores; configs/hmsa/README.md has a measured time.
"""

_base_ = './camvid.py'
channels_last = True  # this and bf16 are faster on a CPU: benchmarks/RESULTS.md
optim_wrapper = dict(type='Bf16OptimWrapper')
train_cfg = dict(max_epochs=25, val_interval=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, **_base_.per_iter),
    dict(type='PolyLRToEnd', power=0.9, begin=1, end=25, **_base_.per_iter),
]
