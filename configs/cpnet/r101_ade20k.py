"""CPNet (arXiv 2004.01547), ResNet-101, ADE20K, on MMSegmentation's schedule.

bash tools/dist_train.sh configs/cpnet/r101_ade20k.py 4 --amp
python tools/test.py configs/cpnet/r101_ade20k.py CHECKPOINT --tta

Paper, Table 4: 46.27 mIoU on val, scales and flip. Ours: not measured. Batch 16 (4 GPUs x 4), 160k
iterations, crop 512x512.
"""

_base_ = './r50_ade20k.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='open-mmlab://resnet101_v1c')))
paper = dict(miou=46.27, split='ADE20K val', source='Table 4, scales and flip')
