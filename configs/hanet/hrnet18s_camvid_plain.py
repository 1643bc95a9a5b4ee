"""DeepLabV3+'s head on HRNet-W18-small, CamVid, from scratch: HANet without gates.

python tools/train.py configs/hanet/hrnet18s_camvid_plain.py

Batch 8, 25 epochs, half-size images, for two CPU cores. Results: README.md beside this file.
"""

_base_ = './hrnet18s_camvid.py'
model = dict(decode_head=dict(gates=()))
