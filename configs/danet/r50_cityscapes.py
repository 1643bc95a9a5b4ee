"""DANet (arXiv 1809.02983), ResNet-50, Cityscapes: the released recipe on the smaller network.

bash tools/dist_train.sh configs/danet/r50_cityscapes.py 4
python tools/test.py configs/danet/r50_cityscapes.py CHECKPOINT --tta

Paper: no number for this recipe; the host's DAHead: 79.34 mIoU on val (its model zoo, 80k
iterations, crop 512x1024). Ours: not measured. Batch 8 (4 GPUs x 2), 240 epochs, crop 768x768.
"""

_base_ = './r101_cityscapes.py'
model = dict(
    backbone=dict(
        depth=50,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    )
)
