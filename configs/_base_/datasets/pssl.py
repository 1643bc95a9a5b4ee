"""ImageNet in class folders with labels of PSSL: 1000 classes and background, crop 256x256.

    data/imagenet/train/CLASS/NAME.JPEG, data/imagenet/val/CLASS/NAME.JPEG
    data/imagenet/pssl/train, data/imagenet/pssl/val    written by tools/pssl_labels.py

Any other class folders work too: set ``data_root`` and, in the model, ``num_classes``: their number
and one for background. Label 1001 is padding, which is ignored.
"""

_base_ = './loaders.py'
crop_size = (256, 256)
ignore_index = 1001
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPSSLLabel'),
    # short side 256 times 0.5 to 2.0
    dict(type='RandomResize', scale=(4096, 256), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, ignore_index=ignore_index),
    dict(type='Pad', size=crop_size, pad_val=dict(img=127, seg=ignore_index)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter', brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPSSLLabel'),
    dict(type='PackSegInputs'),
]
tta_pipeline = None  # labels of a model are no test
train_dataloader = dict(
    batch_size=12,
    dataset=dict(
        type='PSSLDataset',
        data_root='data/imagenet',
        data_prefix=dict(img_path='train', seg_map_path='pssl/train'),
        pipeline=train_pipeline,
    ),
)
auto_scale_lr = dict(base_batch_size=96)
val_dataloader = dict(
    dataset=dict(
        type='PSSLDataset',
        data_root='data/imagenet',
        data_prefix=dict(img_path='val', seg_map_path='pssl/val'),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='IoUMetric', iou_metrics=['mIoU'], ignore_index=ignore_index
)
test_evaluator = val_evaluator
