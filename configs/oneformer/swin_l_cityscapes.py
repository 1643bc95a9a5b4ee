"""OneFormer (arXiv 2211.06220), Swin-L, Cityscapes.

bash tools/dist_train.sh configs/oneformer/swin_l_cityscapes.py 8 --amp
python tools/convert_checkpoint.py oneformer RELEASED.pth swin_l.pth
python tools/test.py configs/oneformer/swin_l_cityscapes.py swin_l.pth --task semantic

Paper: PQ 67.2, AP 45.6, mIoU 83.0 on val, one scale (released README). Ours: not measured. Batch 16
(8 GPUs x 2), 90k iterations, crop 512x1024.
"""

_base_ = './r50_cityscapes.py'
swin_l_22k = (
    'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/'
    'swin_large_patch4_window12_384_22k_20220412-6580f57d.pth'
)
model = dict(
    levels=dict(in_channels=[192, 384, 768, 1536]),
    head_level=dict(in_channels=1536),
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        pretrain_img_size=384,
        embed_dims=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=12,
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=swin_l_22k),
    ),
    decode_head=dict(num_queries=250),
    test_cfg=dict(max_instances=250),
)
tables = dict(lr_mult=0.1, decay_mult=0.0)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(relative_position_bias_table=tables)))
paper = dict(miou=83.0, split='Cityscapes val', source='released README, one scale')
