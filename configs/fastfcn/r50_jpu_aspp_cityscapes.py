"""FastFCN (arXiv 1903.11816) with DeepLabV3's head, ResNet-50, Cityscapes: the released recipe.

bash tools/dist_train.sh configs/fastfcn/r50_jpu_aspp_cityscapes.py 4 --init IMAGENET.pth

Paper: no number on this data set. Ours: not measured. Batch 16 (4 GPUs x 4), 240 epochs, crop
480x480.
"""

_base_ = './r50_jpu_encnet_cityscapes.py'
model = dict(
    decode_head=dict(type='FastFCNASPPHead'),
    auxiliary_head=dict(loss_decode=dict(loss_weight=0.4)),  # official; 0.2 is only for EncNet
)
