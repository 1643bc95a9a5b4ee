"""HMSA (arXiv 2005.10821), EfficientNet-Lite0 and a narrow OCR head, CamVid.

python tools/train.py configs/hmsa/efflite0_camvid.py
python tools/test.py configs/hmsa/efflite0_camvid.py CHECKPOINT --cfg-options
    "model.test_scales=(0.5, 1.0, 2.0)"

Batch 8, 16 epochs, full images. Results: README.md beside this file.
"""

_base_ = './efflite0_camvid_plain.py'
model = dict(
    type='HMSA',
    decode_head=dict(
        _delete_=True,
        type='HMSAHead',
        attention_channels=16,
        head=_base_.model.decode_head,
    ),
    test_scales=(0.5, 1.0),
    loss_single=dict(_base_.bce, loss_weight=0.05),
)
