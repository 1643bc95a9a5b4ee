"""HANet (arXiv 2003.05128), DeepLabV3+ on ResNeXt-101 32x8d, Cityscapes, for the test server.

bash tools/dist_train.sh configs/hanet/rx101_deeplabv3plus_cityscapes.py 6 --init MAPILLARY.pth

Official: 83.2 mIoU on test, with weights from Mapillary Vistas and with crops of the coarse labels
of classes 3, 4, 12 and 14 to 17. This config has no such crops. Ours: not measured. Trains on train
and val, so a score on val is no test: the last checkpoint counts, and no best one is kept. Batch 12
(6 GPUs x 2), 90k iterations, crop 864x864.
"""

_base_ = './r101_deeplabv3plus_cityscapes.py'
class_weight = [
    *(0.8373, 0.9180, 0.8660, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
    *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
]
initial_weights = 'a training on Mapillary Vistas, which is not published'
weighted = dict(type='WeightedCELoss', class_weight=class_weight)
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
    decode_head=dict(loss_decode=weighted),
    auxiliary_head=dict(loss_decode=dict(weighted, loss_weight=0.4)),
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='AddRowPositions'),
    dict(type='RandomScaleCrop', crop_size=(864, 864), ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter'),
    dict(type='RandomGaussianBlur'),
    dict(type='PackRowPositions'),
]
cityscapes = dict(type='CityscapesIdsDataset', data_root='data/cityscapes', pipeline=train_pipeline)
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='ConcatDataset',
            datasets=[
                dict(
                    cityscapes,
                    data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
                ),
                dict(
                    cityscapes,
                    data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
                ),
            ],
        )
    ),
)
auto_scale_lr = dict(base_batch_size=12)
train_cfg = dict(max_iters=90000, val_interval=9000)
default_hooks = dict(checkpoint=dict(save_best=None))  # the images of val are trained on
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, by_epoch=False, begin=0, end=90000)]
paper = dict(
    miou=83.2, split='Cityscapes test', source='paper, with coarse labels and Mapillary weights'
)
