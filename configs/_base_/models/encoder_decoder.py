"""Settings that every model shares: ImageNet's RGB statistics, images tested whole."""

model = dict(
    type='WindowedEncoderDecoder',
    data_preprocessor=dict(
        type='CheckedDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=1,
    ),
    decode_head=dict(),  # every config names its type
    test_cfg=dict(mode='whole'),
)
