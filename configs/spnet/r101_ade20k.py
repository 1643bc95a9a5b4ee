"""SPNet (arXiv 2003.13328), ResNet-101, ADE20K: the released recipe.

bash tools/dist_train.sh configs/spnet/r101_ade20k.py 4 --init IMAGENET.pth
python tools/test.py configs/spnet/r101_ade20k.py CHECKPOINT --tta

Paper: 45.60 mIoU on val, six scales and flip.
Ours: not measured. Batch 16 (4 GPUs x 4), 120 epochs, crop 480x480.
"""

_base_ = './r50_ade20k.py'
model = dict(backbone=dict(depth=101))
paper = dict(miou=45.60, split='ADE20K val', source='paper, six scales and flip')
