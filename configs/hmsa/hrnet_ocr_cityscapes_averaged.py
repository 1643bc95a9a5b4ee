"""HRNet-W48 and OCR alone, Cityscapes, logits averaged over three scales: HMSA's baseline.

bash tools/dist_train.sh configs/hmsa/hrnet_ocr_cityscapes_averaged.py 8 --init MAPILLARY.pth --amp
python tools/test.py configs/hmsa/hrnet_ocr_cityscapes_averaged.py CHECKPOINT --tta

Paper, Table 2: 84.9 mIoU on val, from a Mapillary checkpoint; without --tta a test has one scale.
The recipe is that of hrnet_ocr_cityscapes.py. Ours: not measured. Batch 8 (8 GPUs x 1), 175 epochs,
crop 1024x2048.
"""

_base_ = [
    '../_base_/models/hrnet.py',
    '../_base_/datasets/cityscapes_class_uniform_1024x2048.py',
    '../_base_/schedules/175e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    decode_head=dict(
        type='OCRNetHead',
        loss_decode=dict(type='RMILoss'),
        loss_aux=dict(type='PixelSumBCELoss', loss_weight=0.4, loss_name='loss_aux'),
    )
)
tta_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=s) for s in (0.5, 1.0, 2.0)],
            [dict(type='LoadSegMap')],  # after the resize: labels keep their size
            [dict(type='PackSegInputs')],
        ],
    ),
]
paper = dict(
    miou=84.9, split='Cityscapes val', source='Table 2, from a Mapillary checkpoint, with --tta'
)
