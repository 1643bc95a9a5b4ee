"""SPNet (arXiv 2003.13328), ResNet-50, Cityscapes: the released recipe of ResNet-101.

bash tools/dist_train.sh configs/spnet/r50_cityscapes.py 4 --init IMAGENET.pth
python tools/test.py configs/spnet/r50_cityscapes.py CHECKPOINT --tta

Official code: 79.5 mIoU on val, without hard pixels (houqb/SPNet#13).
Ours: not measured. Batch 8 (4 GPUs x 2), 180 epochs, crop 768x768.
"""

_base_ = './r101_cityscapes.py'
model = dict(backbone=dict(depth=50))
paper = dict(miou=79.5, split='Cityscapes val', source='released code, without hard pixels')
