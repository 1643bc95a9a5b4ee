"""HMSA (arXiv 2005.10821), HRNet-W48 and OCR, Cityscapes: the model that labels the coarse images.

bash tools/dist_train.sh configs/hmsa/hrnet_ocr_cityscapes_teacher.py 8 --init MAPILLARY.pth --amp

Trained for 75 epochs on train, val and the coarse labels of people (NVIDIA/semantic-segmentation
#104), so a score on val is no test: the last checkpoint counts. All else is our reading: coarse
images are crops of the classes of hrnet_ocr_cityscapes_autolabel.py, in all epochs. Ours: not
measured. Batch 8 (8 GPUs x 1), crop 1024x2048.
"""

_base_ = './hrnet_ocr_cityscapes.py'
cityscapes = dict(
    type='CityscapesIdsDataset', data_root='data/cityscapes', pipeline=_base_.train_pipeline
)
fine = [
    dict(
        cityscapes,
        data_prefix=dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'),
    )
    for split in ('train', 'val')
]
train_dataloader = dict(
    sampler=dict(extra_classes=(3, 4, 6, 7, 9, 11, 12, 13, 14, 15, 16, 17, 18)),
    dataset=dict(
        dataset=dict(_delete_=True, type='ConcatDataset', datasets=fine),
        extra=dict(
            cityscapes,
            data_prefix=dict(
                img_path='leftImg8bit/train_extra', seg_map_path='gtCoarse/train_extra'
            ),
            seg_map_suffix='_gtCoarse_labelTrainIds.png',
        ),
    ),
)
train_cfg = dict(max_epochs=75)
param_scheduler = [dict(type='PolyLRToEnd', power=2.0, by_epoch=True, begin=0, end=75)]
default_hooks = dict(checkpoint=dict(save_best=None))
