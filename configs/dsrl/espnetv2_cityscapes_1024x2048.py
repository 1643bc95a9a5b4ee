"""DSRL's released network, second stage of its training: it sees Cityscapes at 512x1024.

python tools/test.py configs/dsrl/espnetv2_cityscapes_1024x2048.py CONVERTED
python tools/train.py configs/dsrl/espnetv2_cityscapes_1024x2048.py --init FIRST_STAGE

Released weights: 66.50 mIoU on val. Ours: not measured. FIRST_STAGE is a checkpoint of
espnetv2_cityscapes.py. The recipe is that of ESPNetv2: frozen norms, batch 6, crop 1024x2048.
"""

_base_ = './espnetv2_cityscapes.py'
initial_weights = 'the best checkpoint of configs/dsrl/espnetv2_cityscapes.py'
crop_size = (1024, 2048)
norm_cfg = dict(type='FrozenBN', requires_grad=False)  # EdgeNets
model = dict(norm_cfg=norm_cfg, backbone=dict(norm_cfg=norm_cfg))
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadSegMap')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(batch_size=6, dataset=dict(pipeline=train_pipeline))  # EdgeNets
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=6)
optim_wrapper = dict(optimizer=dict(lr=5e-3))  # EdgeNets
paper = dict(miou=66.50, split='Cityscapes val', source='released weights, 512x1024')
