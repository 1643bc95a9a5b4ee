"""hrnet18s_camvid.py without the affinity between the branches.

python tools/train.py configs/dsrl/hrnet18s_camvid_sssr_sisr.py

Results: README.md beside this file.
"""

_base_ = './hrnet18s_camvid.py'
model = dict(loss_fa=None)
