"""HMSA (arXiv 2005.10821), HRNet-W48 and OCR, Cityscapes: with auto-labelled coarse images.

python tools/auto_label.py TEACHER_CONFIG TEACHER data/cityscapes/leftImg8bit/train_extra \
    data/cityscapes/autolabels/train_extra
bash tools/dist_train.sh configs/hmsa/hrnet_ocr_cityscapes_autolabel.py 16 --amp

Paper, Table 2: 86.3 mIoU on val, from a Mapillary checkpoint (--init PATH); official code: 86.8.
Ours: not measured. Batch 16 (16 GPUs x 1), 175 epochs, crop 1024x2048.
"""

_base_ = './hrnet_ocr_cityscapes.py'
train_dataloader = dict(
    sampler=dict(  # official: rare and thin classes; only fine images in the last epochs
        extra_classes=(3, 4, 6, 7, 9, 11, 12, 13, 14, 15, 16, 17, 18),
        extra_epochs=150,
    ),
    dataset=dict(
        extra=dict(
            type='PseudoLabelDataset',
            data_root='data/cityscapes',
            data_prefix=dict(
                img_path='leftImg8bit/train_extra',
                seg_map_path='autolabels/train_extra',
                human_path='gtCoarse/train_extra',
            ),
            img_suffix='_leftImg8bit.png',
            human_suffix='_gtCoarse_labelIds.png',
            pipeline=[
                dict(type='LoadImage'),
                dict(
                    type='LoadPseudoLabels',
                    threshold=0.9,  # paper; official script: 0.5
                    merge=(14, 15, 16),  # official: truck, bus, train
                    # official: without the car's bonnet and the border of the rectified image
                    valid_box=(15 / 1024, 14 / 2048, 840 / 1024, 2030 / 2048),
                ),
                *_base_.train_pipeline[2:],
            ],
        )
    ),
)
auto_scale_lr = dict(base_batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=1e-2))
paper = dict(miou=86.3, split='Cityscapes val', source='Table 2, from a Mapillary checkpoint')
