"""DeepLabV3+ on ResNeXt-101 32x8d, Mapillary Vistas: weights from which HANet's rx101 starts.

bash tools/dist_train.sh configs/hanet/rx101_deeplabv3plus_mapillary.py 6

The first stage of HANet's test-server recipe (arXiv 2003.05128), without gates and positions. The
loss weights the rare classes of each image. Paper: no number. Ours: not measured. Batch 12 (6 GPUs
x 2), 200k iterations, crop 864x864. Validation is by windows of 1024x1024, which is ours.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/mapillary_class_uniform_864x864.py',
    '../_base_/schedules/40k.py',
    '../_base_/default_runtime.py',
]
weighted = dict(type='ImageWeightedCELoss', reduction='sum')
model = dict(
    num_classes=65,
    backbone=dict(
        _delete_=True,
        type='ResNeXt',
        depth=101,
        groups=32,
        base_width=8,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        norm_cfg=_base_.norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnext101_32x8d-8ba56ff5.pth',
        ),
    ),
    decode_head=dict(
        type='HANetHead',
        in_channels=[256, 1024, 2048],
        in_index=[0, 2, 3],
        gates=(),
        loss_decode=weighted,
    ),
    auxiliary_head=dict(
        type='HANetAuxHead',
        in_channels=1024,
        in_index=2,
        loss_decode=dict(weighted, loss_weight=0.4),
    ),
    test_cfg=dict(mode='slide', crop_size=(1024, 1024), stride=(683, 683)),
)
train_cfg = dict(max_iters=200000, val_interval=20000)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, by_epoch=False, begin=0, end=200000)]
