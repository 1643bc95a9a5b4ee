"""hrnet18s_camvid.py without the reconstruction: the upsampler alone.

python tools/train.py configs/dsrl/hrnet18s_camvid_sssr.py

Results: README.md beside this file.
"""

_base_ = './hrnet18s_camvid.py'
model = dict(sisr=None)
