"""HANet (arXiv 2003.05128), DeepLabV3+ on ResNet-101 of output stride 8, Cityscapes.

bash tools/dist_train.sh configs/hanet/r101_deeplabv3plus_cityscapes.py 2 --init IMAGENET.pth
python tools/test.py configs/hanet/r101_deeplabv3plus_cityscapes.py CHECKPOINT

Released weights: 80.29 mIoU on val, one scale; 82.05 by sliding windows at three scales, which
r101_deeplabv3plus_cityscapes_sliding.py tests. Ours: not measured. Batch 8 (2 GPUs x 4), 40k
iterations, crop 768x768.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/cityscapes_rows_768x768.py',
    '../_base_/schedules/40k.py',
    '../_base_/default_runtime.py',
]
initial_weights = (
    'ResNet-101 for ImageNet of MIT CSAIL (resnet101-imagenet.pth of '
    'CSAILVision/semantic-segmentation-pytorch, read by convert_checkpoint.py hanet)'
)
model = dict(
    backbone=dict(depth=101, stem_channels=128, contract_dilation=False, init_cfg=None),
    decode_head=dict(type='HANetHead', in_channels=[256, 1024, 2048], in_index=[0, 2, 3]),
    auxiliary_head=dict(type='HANetAuxHead', in_channels=1024, in_index=2),
)
optim_wrapper = dict(
    # official: 5e-4, and 1e-4 for the gates
    paramwise_cfg=dict(custom_keys=dict(height_attention=dict(decay_mult=0.2)))
)
paper = dict(miou=80.29, split='Cityscapes val', source='released weights, one scale')
