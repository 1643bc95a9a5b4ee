"""DeepLabV3+ on EfficientNet-Lite0, CamVid: efflite0_camvid.py without the shape stream.

python tools/train.py configs/gscnn/efflite0_camvid_plain.py

Batch 8, 16 epochs, full images. Results: README.md beside this file.
"""

_base_ = './efflite0_camvid.py'
model = dict(decode_head=dict(shape_stream=False))
