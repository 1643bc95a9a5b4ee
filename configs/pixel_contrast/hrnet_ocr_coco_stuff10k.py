"""Pixel contrast (arXiv 2101.11939), HRNet-W48 and OCR, COCO-Stuff 10k.

bash tools/dist_train.sh configs/pixel_contrast/hrnet_ocr_coco_stuff10k.py 4 --amp

Paper: 41.0 mIoU on test (as others cite it). Ours: not measured. Batch 8 (4 GPUs x 2),
60k iterations, crop 520x520.
"""

_base_ = './hrnet_coco_stuff10k.py'
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
paper = dict(miou=41.0, split='COCOStuff test', source='paper, as others cite it')
