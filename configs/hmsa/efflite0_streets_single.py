"""The model of efflite0_streets.py at one scale, for comparison.

python tools/test.py configs/hmsa/efflite0_streets_single.py CHECKPOINT
"""

_base_ = './efflite0_streets.py'
model = dict(test_scales=(1.0,))
