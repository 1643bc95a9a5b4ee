"""Pixel contrast (arXiv 2101.11939), HRNet-W18-small, the drawn streets, with memory.

python tools/make_streets.py data/streets
python tools/train.py configs/pixel_contrast/hrnet18s_streets_memory.py

Batch 8, 25 epochs, crop 256x512, for two CPU cores.
"""

_base_ = './hrnet18s_streets.py'
model = dict(decode_head=dict(memory=dict(type='MemoryBank', size=1000)))
