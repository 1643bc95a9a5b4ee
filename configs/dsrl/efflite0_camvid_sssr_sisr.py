"""efflite0_camvid.py without the affinity between the branches.

python tools/train.py configs/dsrl/efflite0_camvid_sssr_sisr.py

Results: README.md beside this file.
"""

_base_ = './efflite0_camvid.py'
model = dict(loss_fa=None)
