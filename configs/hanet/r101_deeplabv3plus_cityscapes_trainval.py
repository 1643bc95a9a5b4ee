"""HANet (arXiv 2003.05128), DeepLabV3+ on ResNet-101 of output stride 8, for the test server.

bash tools/dist_train.sh configs/hanet/r101_deeplabv3plus_cityscapes_trainval.py 4 --init FILE
python tools/test.py configs/hanet/r101_deeplabv3plus_cityscapes_trainval.py CHECKPOINT --tta

Paper: 82.1 mIoU on Cityscapes test, fine labels only (as others cite it). Ours: not measured. The
best of the released recipes: trains on train and val, weighted classes. Batch 12 (4 GPUs x 3), 90k
iterations, crop 864x864.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/cityscapes_rows_trainval_864x864.py',
    '../_base_/schedules/40k.py',
    '../_base_/default_runtime.py',
]
initial_weights = (
    'ResNet-101 for ImageNet of MIT CSAIL (resnet101-imagenet.pth of '
    'CSAILVision/semantic-segmentation-pytorch, read by convert_checkpoint.py hanet)'
)
weighted = dict(
    type='WeightedCELoss',
    class_weight=[
        *(0.8373, 0.9180, 0.8660, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
        *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
    ],
)
model = dict(
    backbone=dict(depth=101, stem_channels=128, contract_dilation=False, init_cfg=None),
    decode_head=dict(
        type='HANetHead', in_channels=[256, 1024, 2048], in_index=[0, 2, 3], loss_decode=weighted
    ),
    auxiliary_head=dict(
        type='HANetAuxHead',
        in_channels=1024,
        in_index=2,
        loss_decode=dict(weighted, loss_weight=0.4),
    ),
    # as in r101_deeplabv3plus_cityscapes_sliding.py
    test_cfg=dict(mode='slide', crop_size=(1024, 1024), stride=(1024, 683), full_height=True),
)
optim_wrapper = dict(
    # official: 5e-4, and 1e-4 for the gates
    paramwise_cfg=dict(custom_keys=dict(height_attention=dict(decay_mult=0.2)))
)
train_cfg = dict(max_iters=90000, val_interval=9000)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, by_epoch=False, begin=0, end=90000)]
# it trains on val: the last checkpoint counts
default_hooks = dict(checkpoint=dict(save_best=None))
paper = dict(miou=82.1, split='Cityscapes test', source='paper, as others cite it, fine labels')
