"""DANet (arXiv 1809.02983), ResNet-101, ADE20K: the defaults of the released code of 2020.

bash tools/dist_train.sh configs/danet/r101_ade20k.py 4
python tools/test.py configs/danet/r101_ade20k.py CHECKPOINT --tta

Paper: no number on this data set; the host's DAHead: 44.17 mIoU on val (its model zoo, 160k
iterations, crop 512x512). Ours: not measured. Batch 16 (4 GPUs x 4), 180 epochs, crop 480x480.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/ade20k_encoding_480x480.py',
    '../_base_/schedules/180e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=150,
    backbone=dict(
        type='ResNet',
        depth=101,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth'),
    ),
    decode_head=dict(type='DANetHead'),
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomFlip', prob=0.5),
    # official: the long side from 260 to 1040
    dict(type='RandomResize', scale=(520, 520), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='Pad', size=_base_.crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=0.004),  # from the released table, for 16 images
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))),
)
tta_pipeline = [dict(type='LoadImage'), dict(type='LoadSegMap'), dict(type='PackSegInputs')]
tta_model = dict(type='EncodingTTAModel', base_size=520, crop_size=(480, 480))
