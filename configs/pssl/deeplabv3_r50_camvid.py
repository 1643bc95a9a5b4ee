"""DeepLabV3 on ResNet-50, CamVid, from a network that PSSL pre-trained.

python tools/convert_checkpoint.py pssl work_dirs/pssl/deeplabv3_r50_pssl/epoch_5.pth START.pth
python tools/train.py configs/pssl/deeplabv3_r50_camvid.py --init START.pth

Not measured. Batch 8, 200 epochs, crop 360x480.
"""

_base_ = './pspnet_r50_camvid.py'
initial_weights = 'a checkpoint of configs/pssl/deeplabv3_r50_pssl.py without its classifier'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='ASPPHead',
        channels=512,
        dilations=(1, 12, 24, 36),
        loss_decode=_base_.ce,
    )
)
