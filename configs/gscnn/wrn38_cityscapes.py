"""Gated-SCNN (arXiv 1907.05740), WiderResNet-38, Cityscapes: the losses of the paper.

bash tools/dist_train.sh configs/gscnn/wrn38_cityscapes.py 8

Paper, Table 1: 80.8 mIoU on val, one scale. Ours: not measured. Batch 16 (8 GPUs x 2), 175 epochs,
crop 720x720.
"""

_base_ = [
    '../_base_/models/encoder_decoder.py',
    '../_base_/datasets/cityscapes_720x720.py',
    '../_base_/schedules/175e.py',
    '../_base_/default_runtime.py',
]
norm_cfg = dict(type='SyncBN', requires_grad=True)
initial_weights = (
    'WiderResNet-38 for ImageNet (of mapillary/inplace_abn, read by convert_checkpoint.py gscnn)'
)
model = dict(
    type='GSCNN',
    num_classes=19,
    norm_cfg=norm_cfg,
    levels=dict(in_channels=[64, 128, 256, 512, 4096], in_index=[0, 1, 2, 3, 4]),
    head_level=dict(in_channels=4096, in_index=4),
    # official: from random weights unless a snapshot is given (--init PATH)
    backbone=dict(type='WiderResNetA2', with_cp=True, norm_cfg=norm_cfg),
    decode_head=dict(type='GSCNNHead'),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [dict(type='PolyLRToEnd', power=1.0, by_epoch=True, begin=0, end=175)]
test_evaluator = [_base_.val_evaluator, dict(type='BoundaryFScore')]
paper = dict(miou=80.8, split='Cityscapes val', source='Table 1, one scale')
