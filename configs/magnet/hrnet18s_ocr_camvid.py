"""MagNet (arXiv 2104.03778) on a segmentor that sees half-size images, CamVid, for two CPU cores.

python tools/train.py configs/magnet/hrnet18s_ocr_camvid.py --init SEGMENTOR --amp bf16

SEGMENTOR is a checkpoint of configs/hmsa/hrnet18s_ocr_camvid_plain.py, which sees 240x180. Batch 8,
6 epochs. Results: README.md beside this file.
"""

_base_ = '../hmsa/hrnet18s_ocr_camvid_plain.py'
model = dict(
    _delete_=True,
    type='MagNet',
    data_preprocessor=_base_.model.data_preprocessor,
    segmentor=_base_.model,
    patch_size=(180, 240),
    scales=((180, 240), (360, 480)),
    # the released momentum of 0.01 needs more steps: the running statistics would lag behind
    refiner=dict(type='MagNetRefiner', norm_cfg=dict(type='BN', momentum=0.1)),
    test_cfg=dict(n_points=32768, smooth_kernel=5),
)
# images stay whole, because the model resizes them and draws patches
test_pipeline = [dict(type='LoadImage'), dict(type='LoadSegMap'), dict(type='PackSegInputs')]
tta_pipeline = None  # that of the base halves images; here the model resizes them
train_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
train_cfg = dict(max_epochs=6, val_interval=3)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=6, **_base_.per_iter)]
