"""PSSL (arXiv 2207.03335): OCRNet on HRNet-W18, pre-trained on ImageNet.

bash tools/dist_train.sh configs/pssl/ocrnet_hrnet18_pssl.py 8

No recipe was released for this network. Not measured. Batch 96 (8 GPUs x 12), 10 epochs, crop
256x256.
"""

_base_ = [
    '../_base_/models/hrnet18.py',
    '../_base_/datasets/pssl.py',
    '../_base_/schedules/pssl_10e.py',
    '../_base_/default_runtime.py',
]
ce = dict(type='WeightedCELoss', background_weight=0.1, eps=1e-8, in_strips=True)
model = dict(
    num_classes=1001,
    ignore_index=_base_.ignore_index,
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, seg_pad_val=_base_.ignore_index),
    decode_head=dict(
        type='OCRNetHead',
        loss_decode=ce,
        loss_aux=dict(ce, loss_weight=0.4, loss_name='loss_aux'),
    ),
)
# the released weights are those after epoch 5
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))
