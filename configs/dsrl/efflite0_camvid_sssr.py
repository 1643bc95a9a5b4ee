"""efflite0_camvid.py without the reconstruction: the upsampler alone.

python tools/train.py configs/dsrl/efflite0_camvid_sssr.py

Results: README.md beside this file.
"""

_base_ = './efflite0_camvid.py'
model = dict(sisr=None)
