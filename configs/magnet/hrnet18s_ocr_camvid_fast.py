"""MagNet-Fast: 90 % of the points of the two least certain patches; CamVid.

python tools/test.py configs/magnet/hrnet18s_ocr_camvid_fast.py CHECKPOINT

Trained as hrnet18s_ocr_camvid.py. Results: README.md beside this file.
"""

_base_ = './hrnet18s_ocr_camvid.py'
model = dict(test_cfg=dict(n_points=0.9, n_patches=2))
