"""PSSL (arXiv 2207.03335): PSPNet on ResNet-50, pre-trained on ImageNet.

cd data/imagenet
python ../../tools/pssl_labels.py --images train --models MODELS.py --out pssl/train
python ../../tools/pssl_labels.py --images val --models MODELS.py --out pssl/val
cd ../..
bash tools/dist_train.sh configs/pssl/pspnet_r50_pssl.py 8
python tools/convert_checkpoint.py pssl work_dirs/pssl/pspnet_r50_pssl/epoch_5.pth pspnet.pth

No recipe was released for this network; the schedule is that of the released ones. Not measured.
Batch 96 (8 GPUs x 12), 10 epochs, crop 256x256.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/pssl.py',
    '../_base_/schedules/pssl_10e.py',
    '../_base_/default_runtime.py',
]
ce = dict(type='WeightedCELoss', background_weight=0.1, eps=1e-8, in_strips=True)
model = dict(
    num_classes=1001,
    ignore_index=_base_.ignore_index,
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, seg_pad_val=_base_.ignore_index),
    decode_head=dict(type='PSPHead', channels=512, loss_decode=ce),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        loss_decode=dict(ce, loss_weight=0.4),
    ),
)
# the released weights are those after epoch 5
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))
