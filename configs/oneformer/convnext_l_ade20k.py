"""OneFormer (arXiv 2211.06220), ConvNeXt-L, ADE20K.

bash tools/dist_train.sh configs/oneformer/convnext_l_ade20k.py 8 --amp --init IMAGENET.pth
python tools/convert_checkpoint.py oneformer RELEASED.pth convnext_l.pth
python tools/test.py configs/oneformer/convnext_l_ade20k.py convnext_l.pth --task semantic

Paper: PQ 50.0, AP 36.2, mIoU 56.6 on val, one scale (released README). Ours: not measured. Batch 16
(8 GPUs x 2), 160k iterations, crop 640x640.
"""

_base_ = './swin_l_ade20k.py'
initial_weights = (
    'ConvNeXt-L for ImageNet-22k (convnext_large_22k_1k_384.pth of facebookresearch/ConvNeXt, read '
    'by convert_checkpoint.py oneformer)'
)
model = dict(backbone=dict(_delete_=True, type='ConvNeXt', drop_path_rate=0.3))
custom_keys = dict(_delete_=True, backbone=dict(lr_mult=0.1))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=custom_keys))
paper = dict(miou=56.6, split='ADE20K val', source='released README, one scale')
