"""Gated-SCNN (arXiv 1907.05740), ResNet-50 of output stride 8, Cityscapes.

bash tools/dist_train.sh configs/gscnn/r50_cityscapes.py 8

The released code builds only WiderResNet-38, so the paper's ResNets have no released recipe. This
is the recipe of wrn38_cityscapes.py. Ours: not measured. Batch 16 (8 GPUs x 2), 175 epochs, crop
720x720.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/cityscapes_720x720.py',
    '../_base_/schedules/175e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    type='GSCNN',
    levels=dict(in_channels=[64, 256, 512, 1024, 2048], in_index=[0, 1, 2, 3, 4]),
    head_level=dict(in_channels=2048, in_index=4),
    backbone=dict(type='StemResNet'),
    decode_head=dict(type='GSCNNHead'),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [dict(type='PolyLRToEnd', power=1.0, by_epoch=True, begin=0, end=175)]
test_evaluator = [_base_.val_evaluator, dict(type='BoundaryFScore')]
