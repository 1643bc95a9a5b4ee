"""r101_deeplabv3plus_cityscapes.py without the affinity between the branches.

python tools/train.py configs/dsrl/r101_deeplabv3plus_cityscapes_sssr_sisr.py --amp

Ours: not measured.
"""

_base_ = './r101_deeplabv3plus_cityscapes.py'
model = dict(loss_fa=None)
