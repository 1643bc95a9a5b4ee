"""HRNet-W48 alone, Cityscapes, by the recipe of pixel contrast: its baseline.

bash tools/dist_train.sh configs/pixel_contrast/hrnet_cityscapes_plain.py 4 --amp

Released: 79.27 mIoU on val, single scale (its README). Ours: not measured. Batch 8 (4 GPUs x 2),
40k iterations, crop 512x1024.
"""

_base_ = './hrnet_cityscapes.py'
model = dict(decode_head=dict(_delete_=True, **_base_.model.decode_head.head))
paper = dict(miou=79.27, split='Cityscapes val', source='released README, one scale')
