"""PSSL (arXiv 2207.03335): DeepLabV3 on ResNet-50, pre-trained on ImageNet.

bash tools/dist_train.sh configs/pssl/deeplabv3_r50_pssl.py 8

No recipe was released for this network. Not measured. Batch 96 (8 GPUs x 12), 10 epochs, crop
256x256.
"""

_base_ = './pspnet_r50_pssl.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='ASPPHead',
        channels=512,
        dilations=(1, 12, 24, 36),
        loss_decode=_base_.ce,
    )
)
