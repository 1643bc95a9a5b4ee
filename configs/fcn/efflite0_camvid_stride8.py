"""EfficientNet-Lite0 from ImageNet weights and a 3x3 convolution at stride 8, CamVid.

python tools/train.py configs/fcn/efflite0_camvid_stride8.py

The baseline of CPNet, DANet and SPNet. Results: README.md beside this file.
"""

_base_ = './efflite0_camvid.py'
model = dict(
    decode_head=dict(
        _delete_=True, type='FCNHead', channels=128, num_convs=1, loss_decode=_base_.ce
    )
)
