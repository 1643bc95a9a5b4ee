"""DeepLabV3 on ResNet-50, CamVid, from a network that PSSL pre-trained.

python tools/convert_checkpoint.py pssl work_dirs/pssl/deeplabv3_r50_pssl/epoch_5.pth START.pth
python tools/train.py configs/pssl/deeplabv3_r50_camvid.py --init START.pth

Not measured. Batch 8, 200 epochs, crop 360x480.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/camvid.py',
    '../_base_/default_runtime.py',
]
initial_weights = 'a checkpoint of configs/pssl/deeplabv3_r50_pssl.py without its classifier'
ce = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    num_classes=11,
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # those of the pre-training
    backbone=dict(init_cfg=None),
    decode_head=dict(type='ASPPHead', channels=512, dilations=(1, 12, 24, 36), loss_decode=ce),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        loss_decode=dict(ce, loss_weight=0.4),
    ),
)
