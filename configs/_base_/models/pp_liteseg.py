"""PP-LiteSeg-B (arXiv 2204.02681): STDC2, output stride 8, and two auxiliary heads."""

_base_ = './stdc2.py'
aux_head = dict(
    type='FCNHead', in_channels=512, channels=64, num_convs=1, concat_input=False, in_index=1
)
model = dict(
    backbone=dict(_delete_=True, **_base_.model.backbone.backbone_cfg),
    levels=dict(in_channels=[256, 512, 1024], in_index=[0, 1, 2]),
    head_level=dict(
        in_channels=[256, 512, 1024], in_index=[0, 1, 2], input_transform='resize_concat'
    ),
    decode_head=dict(_delete_=True, type='PPLiteSegHead'),
    auxiliary_head=[aux_head, dict(aux_head, in_channels=1024, in_index=2)],
)
