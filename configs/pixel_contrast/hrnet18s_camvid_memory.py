"""Pixel contrast (arXiv 2101.11939), HRNet-W18-small, CamVid, from scratch, with memory.

python tools/train.py configs/pixel_contrast/hrnet18s_camvid_memory.py

The released recipe for CamVid has 5000 rows. Batch 8, 25 epochs, half-size images, for two CPU
cores. Results: README.md beside this file.
"""

_base_ = './hrnet18s_camvid.py'
model = dict(decode_head=dict(memory=dict(type='MemoryBank', size=1000)))
