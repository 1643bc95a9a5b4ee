"""OneFormer (arXiv 2211.06220), ConvNeXt-L, Cityscapes.

bash tools/dist_train.sh configs/oneformer/convnext_l_cityscapes.py 8 --amp --init IMAGENET.pth
python tools/convert_checkpoint.py oneformer RELEASED.pth convnext_l.pth
python tools/test.py configs/oneformer/convnext_l_cityscapes.py convnext_l.pth --task semantic

Paper: PQ 68.5, AP 46.5, mIoU 83.0 on val, one scale (released README). Ours: not measured. Batch 16
(8 GPUs x 2), 90k iterations, crop 512x1024.
"""

_base_ = './swin_l_cityscapes.py'
initial_weights = (
    'ConvNeXt-L for ImageNet-22k (convnext_large_22k_1k_384.pth of facebookresearch/ConvNeXt, read '
    'by convert_checkpoint.py oneformer)'
)
model = dict(backbone=dict(_delete_=True, type='ConvNeXt', drop_path_rate=0.3))
custom_keys = dict(_delete_=True, backbone=dict(lr_mult=0.1))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=custom_keys))
paper = dict(miou=83.0, split='Cityscapes val', source='released README, one scale')
