"""FastFCN (arXiv 1903.11816) with PSPNet's head, ResNet-50, ADE20K: the released recipe.

bash tools/dist_train.sh configs/fastfcn/r50_jpu_psp_ade20k.py 4 --init IMAGENET.pth

Paper: no number on this data set. Ours: not measured. Batch 16 (4 GPUs x 4), 120 epochs, crop
480x480.
"""

_base_ = './r50_jpu_encnet_ade20k.py'
model = dict(
    decode_head=dict(
        type='PSPHead',
        channels=512,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    auxiliary_head=dict(loss_decode=dict(loss_weight=0.4)),  # official; 0.2 is only for EncNet
)
