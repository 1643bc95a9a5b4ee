"""Pixel contrast (arXiv 2101.11939), HRNet-W48 and OCR, PASCAL-Context.

bash tools/dist_train.sh configs/pixel_contrast/hrnet_ocr_pascal_context.py 4 --amp

Paper: 57.2 mIoU on val (as others cite it), 59 classes. Ours: not measured. Batch 8 (4 GPUs x 2),
60k iterations, crop 520x520.
"""

_base_ = './hrnet_pascal_context.py'
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
paper = dict(miou=57.2, split='PascalContext59 val', source='paper, as others cite it')
