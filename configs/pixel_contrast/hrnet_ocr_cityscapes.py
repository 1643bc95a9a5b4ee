"""Pixel contrast (arXiv 2101.11939), HRNet-W48 and OCR, Cityscapes: the released network.

bash tools/dist_train.sh configs/pixel_contrast/hrnet_ocr_cityscapes.py 4 --amp

No number is known without memory. Ours: not measured. Batch 8 (4 GPUs x 2), 40k iterations, crop
512x1024.
"""

_base_ = './hrnet_cityscapes.py'
model = dict(
    decode_head=dict(
        head=dict(
            _delete_=True,
            type='OpensegOCRHead',
            align_corners=True,
            loss_decode=_base_.ce,
            loss_aux=dict(_base_.ce, loss_weight=0.4, loss_name='loss_aux'),
        )
    )
)
