"""FastFCN (arXiv 1903.11816) with EncNet's head, ResNet-101, PASCAL-Context: the released recipe.

bash tools/dist_train.sh configs/fastfcn/r101_jpu_encnet_pascal_context.py 4 --init IMAGENET.pth
python tools/test.py configs/fastfcn/r101_jpu_encnet_pascal_context.py CHECKPOINT --tta

Paper: 54.03 mIoU on val, 59 classes, six scales and flip; 52.60 with a dilated backbone. 53.13 with
60 classes. Ours: not measured. Batch 16 (4 GPUs x 4), 80 epochs, crop 480x480.
"""

_base_ = './r50_jpu_encnet_pascal_context.py'
initial_weights = (
    'ResNet-101 for ImageNet of PyTorch-Encoding (resnet101-2a57e44d.pth of '
    'zhanghang1989/PyTorch-Encoding, read by convert_checkpoint.py fastfcn)'
)
model = dict(backbone=dict(depth=101))
paper = dict(miou=54.03, split='PascalContext59 val', source='paper, six scales and flip')
