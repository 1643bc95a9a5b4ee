"""DANet (arXiv 1809.02983), ResNet-101, COCO-Stuff 10k.

bash tools/dist_train.sh configs/danet/r101_coco_stuff10k.py 4
python tools/test.py configs/danet/r101_coco_stuff10k.py CHECKPOINT --tta

Paper: 39.7 mIoU on test. Ours: not measured. Rate, batch and epochs are the paper's (as others cite
it). Batch 16 (4 GPUs x 4), 180 epochs, crop 480x480.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/coco_stuff10k_danet_480x480.py',
    '../_base_/schedules/180e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=171,
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
paper = dict(miou=39.7, split='COCOStuff test', source='paper')
