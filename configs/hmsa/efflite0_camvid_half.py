"""EfficientNet-Lite0 and a small FPN head, every second label of CamVid: HMSA's auto-labelling.

python tools/train.py configs/hmsa/efflite0_camvid_half.py
python tools/auto_label.py configs/hmsa/efflite0_camvid_half.py CHECKPOINT data/camvid/train \
    data/camvid/autolabels/train

Batch 8, the iterations of configs/fcn/efflite0_camvid.py. Results: README.md beside this file.
"""

_base_ = '../fcn/efflite0_camvid.py'
train_dataloader = dict(dataset=dict(indices=list(range(0, 367, 2))))
train_cfg = dict(max_epochs=32, val_interval=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=2, **_base_.per_iter),
    dict(type='PolyLRToEnd', power=0.9, begin=2, end=32, **_base_.per_iter),
]
