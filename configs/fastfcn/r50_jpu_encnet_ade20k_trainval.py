"""FastFCN (arXiv 1903.11816), EncNet's head, ResNet-50: ADE20K's test server, second stage.

bash tools/dist_train.sh configs/fastfcn/r50_jpu_encnet_ade20k_trainval.py 4 --init CHECKPOINT

CHECKPOINT is a training of r50_jpu_encnet_ade20k.py. Paper: no number; weights were released.
Ours: not measured. Trains on train and val. Batch 16 (4 GPUs x 4), 20 epochs, crop 480x480.
"""

_base_ = './r101_jpu_encnet_ade20k_trainval.py'
initial_weights = 'a training of configs/fastfcn/r50_jpu_encnet_ade20k.py'
model = dict(backbone=dict(depth=50))
