"""MagNet-Fast: 90 % of the points of the four least certain patches of each scale; Cityscapes.

python tools/test.py configs/magnet/hrnet18s_ocr_cityscapes_fast.py CHECKPOINT

Trained as hrnet18s_ocr_cityscapes.py. Released code, which takes the most certain patches: 67.37
mIoU on val. Ours: not measured.
"""

_base_ = './hrnet18s_ocr_cityscapes.py'
model = dict(test_cfg=dict(n_points=0.9, n_patches=4))
paper = dict(miou=67.37, split='Cityscapes val', source='released weights')
