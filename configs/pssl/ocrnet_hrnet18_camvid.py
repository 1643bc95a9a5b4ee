"""OCRNet on HRNet-W18, CamVid, from a network that PSSL pre-trained.

python tools/convert_checkpoint.py pssl work_dirs/pssl/ocrnet_hrnet18_pssl/epoch_5.pth START.pth
python tools/train.py configs/pssl/ocrnet_hrnet18_camvid.py --init START.pth

Not measured. Batch 8, 200 epochs, crop 360x480.
"""

_base_ = [
    '../_base_/models/hrnet18.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/camvid.py',
    '../_base_/default_runtime.py',
]
initial_weights = 'a checkpoint of configs/pssl/ocrnet_hrnet18_pssl.py without its classifier'
ce = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    num_classes=11,
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # those of the pre-training
    backbone=dict(init_cfg=None),
    decode_head=dict(type='OCRNetHead', loss_decode=ce),
)
