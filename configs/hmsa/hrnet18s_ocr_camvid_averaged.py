"""The model of hrnet18s_ocr_camvid_plain.py with logits averaged over three scales.

python tools/test.py configs/hmsa/hrnet18s_ocr_camvid_averaged.py CHECKPOINT --tta
"""

_base_ = './hrnet18s_ocr_camvid_plain.py'
tta_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='TestTimeAug',
        transforms=[
            # 0.5, 1 and 2 times the half-size images
            [
                dict(type='Resize', scale_factor=s, interpolation='area' if s < 1 else 'bilinear')
                for s in (0.25, 0.5, 1.0)
            ],
            [dict(type='LoadSegMap')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
