"""MagNet (arXiv 2104.03778), HRNet-W18-small and OCR at 256x128, Cityscapes: the official recipe.

python tools/train.py configs/magnet/hrnet18s_ocr_cityscapes.py --init SEGMENTOR

SEGMENTOR is a checkpoint of hrnet18s_ocr_cityscapes_plain.py. Released code: 68.20 mIoU on val.
Ours: not measured. Batch 8, 50 epochs, a refiner for each scale.
"""

_base_ = './hrnet18s_ocr_cityscapes_plain.py'
model = dict(
    _delete_=True,
    type='MagNet',
    data_preprocessor=_base_.model.data_preprocessor,
    segmentor=_base_.model,
    patch_size=(128, 256),
    scales=((128, 256), (256, 512), (512, 1024), (1024, 2048)),
    num_refiners=3,
    test_cfg=dict(n_points=32768, smooth_kernel=5),
)
# images stay whole, because the model resizes them and draws patches
test_pipeline = [dict(type='LoadImage'), dict(type='LoadSegMap'), dict(type='PackSegInputs')]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_epochs=50, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[10, 20, 30, 40, 45], gamma=0.1, by_epoch=True, end=50)
]
paper = dict(miou=68.20, split='Cityscapes val', source='released weights')
