"""HANet (arXiv 2003.05128), tested like its best numbers: scales 0.5, 1, 2, flips, windows.

python tools/test.py configs/hanet/r101_deeplabv3plus_cityscapes_sliding.py CHECKPOINT --tta

Released weights: 82.05 mIoU on val. Ours: not measured. A window has the full height of the image,
is as wide as high (at least 1024) and overlaps the next by a third. Logits are averaged.
"""

_base_ = './r101_deeplabv3plus_cityscapes.py'
model = dict(
    test_cfg=dict(mode='slide', crop_size=(1024, 1024), stride=(1024, 683), full_height=True)
)
paper = dict(
    miou=82.05, split='Cityscapes val', source='released weights, measured by a user, --tta'
)
