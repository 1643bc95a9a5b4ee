"""hrnet_ocr_mapillary.py, scored at a long edge of 2177, as the released code does.

python tools/test.py configs/hmsa/hrnet_ocr_mapillary_2177.py CHECKPOINT --tta

Official weights: 61.05 mIoU on val, four scales and flip. Ours: not measured.
"""

_base_ = './hrnet_ocr_mapillary.py'
resized = [
    dict(type='LoadSegMap'),  # before the resize: labels are resized too
    dict(type='Resize', scale=(2177, 2177), keep_ratio=True),
    dict(type='SetOriginalSize'),
]
test_pipeline = [dict(type='LoadImage'), *resized, dict(type='PackSegInputs')]
tta_pipeline = [
    dict(type='LoadImage'),
    *resized,
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
paper = dict(miou=61.05, split='Mapillary65 val', source='released weights, four scales and flip')
