"""HANet (arXiv 2003.05128), DeepLabV3+ on ResNet-50 of output stride 16, Cityscapes.

bash tools/dist_train.sh configs/hanet/r50_deeplabv3plus_cityscapes.py 2

Paper: 77.78 mIoU on val, 76.84 without gates (as others cite it). Ours: not measured. Batch 8 (2
GPUs x 4), 40k iterations, crop 768x768.
"""

_base_ = './r101_deeplabv3plus_cityscapes_os16.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',  # the ordinary stem
        depth=50,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        norm_cfg=_base_.norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
        ),
    )
)
paper = dict(miou=77.78, split='Cityscapes val', source='paper, as others cite it')
