"""DeepLabV3 on ResNet-101, Cityscapes, by the recipe of pixel contrast: its baseline.

bash tools/dist_train.sh configs/pixel_contrast/r101_deeplabv3_cityscapes_plain.py 4 \
    --init IMAGENET.pth --amp

Released: 72.75 mIoU on val, single scale (its README); the authors call this baseline broken. Ours:
not measured. Batch 8 (4 GPUs x 2), 40k iterations, crop 512x1024.
"""

_base_ = './r101_deeplabv3_cityscapes.py'
model = dict(decode_head=dict(_delete_=True, **_base_.model.decode_head.head))
paper = dict(miou=72.75, split='Cityscapes val', source='released README, one scale')
