"""HANet (arXiv 2003.05128), DeepLabV3+ on ResNet-101 of output stride 8, BDD100K.

bash tools/dist_train.sh configs/hanet/r101_deeplabv3plus_bdd100k.py 2 --init IMAGENET.pth

Paper: 64.56 mIoU on val, 63.75 without gates (as others cite it). Ours: not measured. The recipe
was not released. This is the recipe of Cityscapes without class-uniform sampling, batch 8 (2 GPUs x
4). The data are under data/bdd100k, in the layout of the host.
"""

_base_ = './r101_deeplabv3plus_cityscapes.py'
train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(
        _delete_=True,
        type='BDD100KDataset',
        data_root='data/bdd100k',
        data_prefix=dict(img_path='images/10k/train', seg_map_path='labels/sem_seg/masks/train'),
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='BDD100KDataset',
        data_root='data/bdd100k',
        data_prefix=dict(img_path='images/10k/val', seg_map_path='labels/sem_seg/masks/val'),
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader
server_prefix = None  # not that of Cityscapes
paper = dict(miou=64.56, split='BDD100K val', source='paper, as others cite it')
