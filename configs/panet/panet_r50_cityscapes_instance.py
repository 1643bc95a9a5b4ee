"""PANet (arXiv 1803.01534), ResNet-50, Cityscapes' instances: the paper's recipe.

python tools/train.py configs/panet/panet_r50_cityscapes_instance.py
python tools/test.py configs/panet/panet_r50_cityscapes_instance.py CHECKPOINT

Paper: 36.5 AP on val, fine labels, with batch norms of all GPUs; a user of the released code got
30.3. Ours: not measured. Batch 8, 24k iterations, short sides of 800 or 1024 pixels.
"""

_base_ = [
    '../_base_/models/panet_r50.py',
    '../_base_/datasets/cityscapes_instance.py',
    '../_base_/schedules/panet_180k.py',
    '../_base_/default_runtime.py',
]
model = dict(num_classes=8)
train_cfg = dict(max_iters=24000, val_interval=2000)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=False, milestones=[18000], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(save_best='AP', rule='greater'))
tta_model = dict(type='SegTTAModel')  # of the semantic result
