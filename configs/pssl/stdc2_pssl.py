"""PSSL (arXiv 2207.03335): STDC2-Seg, pre-trained on ImageNet as released.

bash tools/dist_train.sh configs/pssl/stdc2_pssl.py 8

Not measured. Batch 96 (8 GPUs x 12), 10 epochs, crop 256x256.
"""

_base_ = [
    '../_base_/models/stdc2.py',
    '../_base_/datasets/pssl.py',
    '../_base_/schedules/pssl_10e.py',
    '../_base_/default_runtime.py',
]
ce = dict(type='WeightedCELoss', background_weight=0.1, eps=1e-8, in_strips=True)
aux_head = dict(_base_.aux_head, align_corners=True, loss_decode=ce)
model = dict(
    num_classes=1001,
    ignore_index=_base_.ignore_index,
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, seg_pad_val=_base_.ignore_index),
    decode_head=dict(loss_decode=ce),
    auxiliary_head=[aux_head, dict(aux_head, in_index=1)],
)
# released: a constant rate
optim_wrapper = dict(optimizer=dict(weight_decay=4e-5))
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False, begin=0, end=1)]
# the released weights are those after epoch 5
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))
