"""FastFCN (arXiv 1903.11816) with EncNet's head, ResNet-101, ADE20K: the released recipe.

bash tools/dist_train.sh configs/fastfcn/r101_jpu_encnet_ade20k.py 4 --init IMAGENET.pth
python tools/test.py configs/fastfcn/r101_jpu_encnet_ade20k.py CHECKPOINT --tta

Paper: 44.34 mIoU on val, six scales and flip; 44.65 with a dilated backbone and crops of 576x576.
Ours: not measured. Batch 16 (4 GPUs x 4), 120 epochs, crop 480x480.
"""

_base_ = './r50_jpu_encnet_ade20k.py'
initial_weights = (
    'ResNet-101 for ImageNet of PyTorch-Encoding (resnet101-2a57e44d.pth of '
    'zhanghang1989/PyTorch-Encoding, read by convert_checkpoint.py fastfcn)'
)
model = dict(backbone=dict(depth=101))
paper = dict(miou=44.34, split='ADE20K val', source='paper, six scales and flip')
