"""CPNet's head (arXiv 2004.01547), narrow, on EfficientNet-Lite0 from ImageNet weights, CamVid.

python tools/train.py configs/cpnet/efflite0_camvid.py

Only the head differs from configs/fcn/efflite0_camvid_stride8.py. Results: README.md beside this
file.
"""

_base_ = '../fcn/efflite0_camvid.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='CPNetHead',
        channels=128,
        prior_channels=64,
        prior_size=(16, 20),  # a crop at stride 16; (32, 40) has 4 times the pairs
        loss_decode=_base_.ce,
    )
)
