"""FastFCN (arXiv 1903.11816) with DeepLabV3's head, ResNet-50, PASCAL-Context: the released recipe.

bash tools/dist_train.sh configs/fastfcn/r50_jpu_aspp_pascal_context.py 4 --init IMAGENET.pth

Paper: 50.07 mIoU on val, 59 classes, one scale; 49.19 with a dilated backbone.
Ours: not measured. Batch 16 (4 GPUs x 4), 80 epochs, crop 480x480.
"""

_base_ = './r50_jpu_encnet_pascal_context.py'
model = dict(
    decode_head=dict(type='FastFCNASPPHead'),
    auxiliary_head=dict(loss_decode=dict(loss_weight=0.4)),  # official; 0.2 is only for EncNet
)
paper = dict(miou=50.07, split='PascalContext59 val', source='paper, one scale')
