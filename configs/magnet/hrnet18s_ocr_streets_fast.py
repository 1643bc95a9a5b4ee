"""MagNet-Fast: 90 % of the points of the four least certain patches of each scale; streets.

python tools/test.py configs/magnet/hrnet18s_ocr_streets_fast.py CHECKPOINT

Trained as hrnet18s_ocr_streets.py.
"""

_base_ = './hrnet18s_ocr_streets.py'
model = dict(test_cfg=dict(n_points=0.9, n_patches=4))
