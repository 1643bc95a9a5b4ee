"""MagNet-Fast: 90 % of the points of the three least certain patches of each scale; DeepGlobe.

python tools/test.py configs/magnet/r50_fpn_deepglobe_fast.py CHECKPOINT

Trained as r50_fpn_deepglobe.py. Released code, which takes the most certain patches: 68.22 mIoU on
test. Ours: not measured.
"""

_base_ = './r50_fpn_deepglobe.py'
model = dict(test_cfg=dict(n_points=0.9, n_patches=3))
paper = dict(miou=68.22, split='DeepGlobe test', source='released weights')
