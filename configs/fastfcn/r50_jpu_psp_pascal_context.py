"""FastFCN (arXiv 1903.11816) with PSPNet's head, ResNet-50, PASCAL-Context: the released recipe.

bash tools/dist_train.sh configs/fastfcn/r50_jpu_psp_pascal_context.py 4 --init IMAGENET.pth

Paper: 50.89 mIoU on val, 59 classes, one scale; 50.58 with a dilated backbone.
Ours: not measured. Batch 16 (4 GPUs x 4), 80 epochs, crop 480x480.
"""

_base_ = './r50_jpu_encnet_pascal_context.py'
model = dict(
    decode_head=dict(
        type='PSPHead',
        channels=512,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    auxiliary_head=dict(loss_decode=dict(loss_weight=0.4)),  # official; 0.2 is only for EncNet
)
paper = dict(miou=50.89, split='PascalContext59 val', source='paper, one scale')
