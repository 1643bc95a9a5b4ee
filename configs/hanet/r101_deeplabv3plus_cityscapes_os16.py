"""HANet (arXiv 2003.05128), DeepLabV3+ on ResNet-101 of output stride 16, Cityscapes.

bash tools/dist_train.sh configs/hanet/r101_deeplabv3plus_cityscapes_os16.py 2 --init IMAGENET.pth

Paper: 79.31 mIoU on val, 77.80 without gates (as others cite it). Ours: not measured. Batch 8 (2
GPUs x 4), 40k iterations, crop 768x768.
"""

_base_ = './r101_deeplabv3plus_cityscapes.py'
model = dict(
    backbone=dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
    decode_head=dict(dilations=(6, 12, 18), attention=dict(reduction=32)),
)
paper = dict(miou=79.31, split='Cityscapes val', source='paper, as others cite it')
