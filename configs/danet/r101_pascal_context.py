"""DANet (arXiv 1809.02983), ResNet-101, PASCAL-Context with background.

bash tools/dist_train.sh configs/danet/r101_pascal_context.py 4
python tools/test.py configs/danet/r101_pascal_context.py CHECKPOINT --tta

Paper: 52.6 mIoU on val, 60 classes. Ours: not measured. Rate and batch are the paper's (as others
cite it), the number of epochs is that of Cityscapes. Batch 16 (4 GPUs x 4), 240 epochs, crop
480x480.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/pascal_context_danet_480x480.py',
    '../_base_/schedules/240e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=60,
    backbone=dict(
        type='ResNet',
        depth=101,
        multi_grid=(4, 8, 16),
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth'),
    ),
    decode_head=dict(type='DANetHead'),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(
    optimizer=dict(lr=0.001),  # paper, as others cite it
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))),
)
paper = dict(miou=52.6, split='PascalContext val', source='paper, 60 classes with background')
