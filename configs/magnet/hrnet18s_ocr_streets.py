"""MagNet (arXiv 2104.03778) at three scales of 128x64 patches, the drawn streets.

python tools/train.py configs/magnet/hrnet18s_ocr_streets.py --init SEGMENTOR

SEGMENTOR is a checkpoint of hrnet18s_ocr_streets_plain.py, which sees 128x64. Batch 8, 8 epochs.
"""

_base_ = './hrnet18s_ocr_streets_plain.py'
model = dict(
    _delete_=True,
    type='MagNet',
    data_preprocessor=_base_.model.data_preprocessor,
    segmentor=_base_.model,
    patch_size=(64, 128),
    scales=((64, 128), (128, 256), (256, 512)),
    # the released momentum of 0.01 needs more steps: the running statistics would lag behind
    refiner=dict(type='MagNetRefiner', norm_cfg=dict(type='BN', momentum=0.1)),
    test_cfg=dict(n_points=8192, smooth_kernel=5),
)
# images stay whole, because the model resizes them and draws patches
test_pipeline = [dict(type='LoadImage'), dict(type='LoadSegMap'), dict(type='PackSegInputs')]
train_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=8, val_interval=2)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=8, **_base_.per_iter)]
