"""MagNet (arXiv 2104.03778) on a segmentor that sees 320x240, CamVid.

python tools/train.py configs/magnet/efflite0_camvid.py --init SEGMENTOR

SEGMENTOR is a checkpoint of configs/fcn/efflite0_camvid.py. Batch 8, 3 epochs. Results: README.md
beside this file.
"""

_base_ = '../fcn/efflite0_camvid.py'
model = dict(
    _delete_=True,
    type='MagNet',
    data_preprocessor=_base_.model.data_preprocessor,
    segmentor=_base_.model,
    patch_size=(240, 320),
    # 0.67, 1 and 1.33 times the image, all within the segmentor's training
    scales=((240, 320), (360, 480), (480, 640)),
    # the released momentum of 0.01 needs more steps: the running statistics would lag behind
    refiner=dict(type='MagNetRefiner', norm_cfg=dict(type='BN', momentum=0.1)),
    test_cfg=dict(n_points=32768, smooth_kernel=5),
)
tta_pipeline = None  # the model tests several scales itself
# images stay whole, because the model resizes them and draws patches
train_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
train_cfg = dict(max_epochs=3, val_interval=3)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=3, **_base_.per_iter)]
