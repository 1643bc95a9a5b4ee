"""PSSL (arXiv 2207.03335): PP-LiteSeg-B, pre-trained on ImageNet with the released recipe.

bash tools/dist_train.sh configs/pssl/pp_liteseg_pssl.py 8

Not measured. Batch 96 (8 GPUs x 12), 10 epochs, crop 256x256.
"""

_base_ = [
    '../_base_/models/pp_liteseg.py',
    '../_base_/datasets/pssl.py',
    '../_base_/schedules/pssl_10e.py',
    '../_base_/default_runtime.py',
]
ce = dict(type='WeightedCELoss', background_weight=0.1, eps=1e-8, in_strips=True)
first, second = _base_.model.auxiliary_head
model = dict(
    num_classes=1001,
    ignore_index=_base_.ignore_index,
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, seg_pad_val=_base_.ignore_index),
    decode_head=dict(loss_decode=ce),
    auxiliary_head=[dict(first, loss_decode=ce), dict(second, loss_decode=ce)],
)
# the released weights are those after epoch 5
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))
