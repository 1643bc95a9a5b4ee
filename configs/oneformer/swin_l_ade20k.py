"""OneFormer (arXiv 2211.06220), Swin-L, ADE20K, crop 640.

bash tools/dist_train.sh configs/oneformer/swin_l_ade20k.py 8 --amp
python tools/convert_checkpoint.py oneformer RELEASED.pth swin_l.pth
python tools/test.py configs/oneformer/swin_l_ade20k.py swin_l.pth --task semantic

Paper: PQ 49.8, AP 35.9, mIoU 57.0 on val, one scale (released README). Ours: not measured. Batch 16
(8 GPUs x 2), 160k iterations, crop 640x640.
"""

_base_ = './r50_ade20k.py'
crop_size = (640, 640)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(
        type='RandomChoiceResize',
        scales=[320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960]
        + [1024, 1088, 1152, 1216, 1280],
        resize_type='ResizeShortestEdge',
        max_size=2560,
    ),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PadPanoptic', size=crop_size, pad_val=dict(img=128)),
    dict(type='PackPanopticInputs'),
    dict(type='OneFormerTargets'),
]
resize = dict(type='Resize', scale=(2560, 640), keep_ratio=True)
test_pipeline = [
    dict(type='LoadImage'),
    resize,
    dict(type='LoadPanoptic'),  # after the resize: labels keep their size
    dict(type='PackPanopticInputs'),
]
tta_pipeline = [
    dict(type='LoadImage'),
    resize,
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadPanoptic')],
            [dict(type='PackPanopticInputs')],
        ],
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
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
paper = dict(miou=57.0, split='ADE20K val', source='released README, one scale')
