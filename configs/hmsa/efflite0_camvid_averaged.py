"""The model of efflite0_camvid_plain.py with logits averaged over HMSA's scales, for comparison.

python tools/test.py configs/hmsa/efflite0_camvid_averaged.py CHECKPOINT
"""

_base_ = './efflite0_camvid_plain.py'
tta = True  # tests average over the scales without --tta
tta_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale_factor=s, interpolation='area' if s < 1 else 'bilinear')
                for s in (0.5, 1.0)
            ],
            [dict(type='LoadSegMap')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
