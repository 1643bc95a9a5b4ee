"""DeepLabV3+'s head on HRNet-W18-small, the drawn streets, from scratch: HANet without gates.

python tools/make_streets.py data/streets
python tools/train.py configs/hanet/hrnet18s_streets_plain.py

Batch 8, 25 epochs, crop 256x512, for two CPU cores.
"""

_base_ = './hrnet18s_streets.py'
model = dict(decode_head=dict(gates=()))
