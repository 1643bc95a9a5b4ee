"""PANet's neck (arXiv 1803.01534), ResNet-50, ADE20K: fpn_r50_ade20k.py with its path.

bash tools/dist_train.sh configs/panet/panet_r50_ade20k.py 2

The paper has no semantic result. Ours: not measured. Batch 16 (2 GPUs x 8), 80k iterations, crop
512x512.
"""

_base_ = './fpn_r50_ade20k.py'
model = dict(neck=dict(type='PANetFPN'))
