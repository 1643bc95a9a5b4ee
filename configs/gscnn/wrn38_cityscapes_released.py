"""Gated-SCNN with WiderResNet-38 as released: for converted weights and training like the authors.

python tools/convert_checkpoint.py gscnn RELEASED.pth gscnn.pth
python tools/test.py configs/gscnn/wrn38_cityscapes_released.py gscnn.pth

Paper, Table 1: 80.8 mIoU on val, one scale; an author reports slightly more for the released
weights. Ours: not measured.
"""

_base_ = './wrn38_cityscapes.py'
by_image = dict(type='ImageWeightedCELoss', reduction='sum')
model = dict(
    canny_input='wrapped',
    canny_value=255.0,
    decode_head=dict(
        skip_class0=True,
        loss_decode=by_image,
        loss_edge=dict(type='BalancedEdgeLoss', double_sigmoid=True),
        loss_att=dict(by_image, loss_name='loss_att'),
        loss_dual=dict(type='DualTaskLoss', temperature=0.5, spatial_grad=False),
    ),
)
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)  # official: 8 GPUs x 1
paper = dict(miou=80.8, split='Cityscapes val', source='Table 1, one scale')
