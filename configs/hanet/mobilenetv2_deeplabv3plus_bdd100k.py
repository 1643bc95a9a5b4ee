"""HANet (arXiv 2003.05128), DeepLabV3+ on MobileNetV2 of output stride 16, BDD100K.

python tools/train.py configs/hanet/mobilenetv2_deeplabv3plus_bdd100k.py

Paper: 60.05 mIoU on val, 58.91 without gates (as others cite it). Ours: not measured. The recipe
was not released. This is the recipe of Cityscapes without class-uniform sampling. Batch 8 (1 GPU x
8), 40k iterations, crop 768x768. The data are under data/bdd100k, in the layout of the host.
"""

_base_ = './mobilenetv2_deeplabv3plus_cityscapes.py'
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
paper = dict(miou=60.05, split='BDD100K val', source='paper, as others cite it')
