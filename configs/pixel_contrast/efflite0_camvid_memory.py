"""Pixel contrast (arXiv 2101.11939) on EfficientNet-Lite0, CamVid, with memory.

python tools/train.py configs/pixel_contrast/efflite0_camvid_memory.py

The released recipe for CamVid has 5000 rows. Results: README.md beside this file.
"""

_base_ = './efflite0_camvid.py'
model = dict(decode_head=dict(memory=dict(type='MemoryBank', size=1000)))
