"""r101_deeplabv3plus_cityscapes.py without the reconstruction: the upsampler alone.

python tools/train.py configs/dsrl/r101_deeplabv3plus_cityscapes_sssr.py --amp

Ours: not measured.
"""

_base_ = './r101_deeplabv3plus_cityscapes.py'
model = dict(sisr=None)
