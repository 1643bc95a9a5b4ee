"""HANet (arXiv 2003.05128), DeepLabV3+ on ResNeXt-101 32x8d, Cityscapes, for the test server.

bash tools/dist_train.sh configs/hanet/rx101_deeplabv3plus_cityscapes.py 6 --init MAPILLARY.pth
python tools/test.py configs/hanet/rx101_deeplabv3plus_cityscapes.py CHECKPOINT --tta

MAPILLARY.pth is a training of rx101_deeplabv3plus_mapillary.py. Official: 83.2 mIoU on test, with
windows, scales and flips. Ours: not measured. Trains on train and val, and on crops of the coarse
labels of seven classes, so no best checkpoint is chosen on val. Batch 12 (6 GPUs x 2), 90k
iterations, crop 864x864.
"""

_base_ = './r101_deeplabv3plus_cityscapes_trainval.py'
initial_weights = 'a training of configs/hanet/rx101_deeplabv3plus_mapillary.py, not published'
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNeXt',
        depth=101,
        groups=32,
        base_width=8,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        norm_cfg=_base_.norm_cfg,
    ),
)
train_dataloader = dict(
    batch_size=2,
    # official: wall, fence, rider, truck, bus, train and motorcycle
    sampler=dict(extra_classes=(3, 4, 12, 14, 15, 16, 17)),
    dataset=dict(
        extra=dict(
            type='CityscapesIdsDataset',
            data_root='data/cityscapes',
            data_prefix=dict(
                img_path='leftImg8bit/train_extra', seg_map_path='gtCoarse/train_extra'
            ),
            seg_map_suffix='_gtCoarse_labelTrainIds.png',
            pipeline=_base_.train_pipeline,
        )
    ),
)
paper = dict(
    miou=83.2, split='Cityscapes test', source='paper, with coarse labels and Mapillary weights'
)
