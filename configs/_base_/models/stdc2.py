"""STDC2 with a context path (arXiv 2104.13188), output stride 8, a head and two auxiliary heads.

Without the boundary head of the paper's Detail Guidance.
"""

_base_ = './encoder_decoder.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
aux_head = dict(
    type='FCNHead', in_channels=128, channels=64, num_convs=1, concat_input=False, in_index=2
)
model = dict(
    num_classes=19,
    norm_cfg=norm_cfg,
    head_level=dict(in_channels=256, in_index=3),
    backbone=dict(
        type='STDCContextPathNet',
        backbone_cfg=dict(
            type='STDCNet',
            stdc_type='STDCNet2',
            in_channels=3,
            channels=(32, 64, 256, 512, 1024),
            bottleneck_type='cat',
            num_convs=4,
            norm_cfg=norm_cfg,
            act_cfg=dict(type='ReLU'),
            with_final_conv=False,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/stdc/'
                'stdc2_20220308-7dbd9127.pth',
            ),
        ),
        last_in_channels=(1024, 512),
        out_channels=128,
        ffm_cfg=dict(in_channels=384, out_channels=256, scale_factor=4),
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        type='FCNHead', channels=256, num_convs=1, concat_input=False, align_corners=True
    ),
    auxiliary_head=[aux_head, dict(aux_head, in_index=1)],
)
