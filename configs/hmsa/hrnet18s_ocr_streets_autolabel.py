"""HMSA (arXiv 2005.10821), HRNet-W18-small and a narrow OCR head, the drawn streets, auto-labels.

python tools/auto_label.py configs/hmsa/hrnet18s_ocr_streets.py CHECKPOINT \
    data/streets/leftImg8bit/train_extra data/streets/autolabels/train_extra
python tools/train.py configs/hmsa/hrnet18s_ocr_streets_autolabel.py

Batch 8, 25 epochs, crop 256x512.
"""

_base_ = './hrnet18s_ocr_streets.py'
train_dataloader = dict(
    sampler=dict(extra_epochs=21),  # of 25 epochs, in proportion to 150 of 175
    dataset=dict(
        extra=dict(
            type='PseudoLabelDataset',
            data_root='data/streets',
            data_prefix=dict(
                img_path='leftImg8bit/train_extra',
                seg_map_path='autolabels/train_extra',
                human_path='gtCoarse/train_extra',
            ),
            img_suffix='_leftImg8bit.png',
            human_suffix='_gtCoarse_labelIds.png',
            pipeline=[
                dict(type='LoadImage'),
                dict(type='LoadPseudoLabels', threshold=0.9, merge=(14, 15, 16)),
                *_base_.train_pipeline[2:],
            ],
        )
    ),
)
