"""MagNet (arXiv 2104.03778), ResNet-50 and FPN at 508x508, DeepGlobe: the official recipe.

python tools/train.py configs/magnet/r50_fpn_deepglobe.py --init SEGMENTOR

SEGMENTOR is a checkpoint of r50_fpn_deepglobe_plain.py. Released code: 72.10 mIoU on test. Ours:
not measured. Batch 8, 50 epochs, one refiner for all scales.
"""

_base_ = './r50_fpn_deepglobe_plain.py'
model = dict(
    _delete_=True,
    type='MagNet',
    data_preprocessor=_base_.model.data_preprocessor,
    segmentor=_base_.model,
    patch_size=(612, 612),
    scales=((612, 612), (1224, 1224), (2448, 2448)),
    input_size=(508, 508),
    test_cfg=dict(n_points=0.75, smooth_kernel=11),
)
# images stay whole, because the model resizes them and draws patches
test_pipeline = [dict(type='LoadImage'), _base_.load_mask, dict(type='PackSegInputs')]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_epochs=50, val_interval=10)
param_scheduler = [
    dict(type='MultiStepLR', milestones=[10, 20, 30, 40, 45], gamma=0.1, by_epoch=True, end=50)
]
paper = dict(miou=72.10, split='DeepGlobe test', source='released weights')
