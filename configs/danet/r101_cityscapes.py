"""DANet (arXiv 1809.02983), ResNet-101, Cityscapes: the released recipe.

bash tools/dist_train.sh configs/danet/r101_cityscapes.py 4
python tools/test.py configs/danet/r101_cityscapes.py CHECKPOINT --tta

Released weights: 79.93 mIoU on val with --tta, 81.49 at eight scales (README.md beside this file).
Ours: not measured. Batch 8 (4 GPUs x 2), 240 epochs, crop 768x768.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/cityscapes_encoding_768x768.py',
    '../_base_/schedules/240e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        type='ResNet',  # a stem of one 7x7 convolution
        depth=101,
        multi_grid=(4, 8, 16),
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth'),
    ),
    decode_head=dict(type='DANetHead'),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=0.003),  # official: 0.01 is for models with one loss
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))),
)
tta_pipeline = _base_.test_pipeline
tta_model = dict(type='EncodingTTAModel', base_size=2048, crop_size=(768, 768))
paper = dict(miou=79.93, split='Cityscapes val', source='released weights, tested by --tta')
