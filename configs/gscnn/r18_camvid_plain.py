"""DeepLabV3+ on ResNet-18, CamVid, from scratch: r18_camvid.py without the shape stream.

python tools/train.py configs/gscnn/r18_camvid_plain.py

Batch 8, 25 epochs, half-size images, for two CPU cores. Results: README.md beside this file.
"""

_base_ = './r18_camvid.py'
model = dict(decode_head=dict(shape_stream=False))
