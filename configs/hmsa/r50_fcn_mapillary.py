"""HMSA (arXiv 2005.10821), ResNet-50 of output stride 8, Mapillary Vistas: the model of Table 1.

bash tools/dist_train.sh configs/hmsa/r50_fcn_mapillary.py 8 --amp
python tools/test.py configs/hmsa/r50_fcn_mapillary.py CHECKPOINT

The head is that of the paper's text: two 3x3 convolutions and a 1x1 convolution on the last stage.
The attention reads the result of the 3x3 convolutions; in the paper it reads the stage itself. The
recipe is that of hrnet_ocr_mapillary.py. Ours: not measured. Batch 16 (8 GPUs x 2), 200 epochs,
crop 1024x1024.
"""

_base_ = [
    '../_base_/models/r50-d8.py',
    '../_base_/datasets/mapillary_class_uniform_1024x1024.py',
    '../_base_/schedules/175e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=65,
    type='HMSA',
    decode_head=dict(
        type='HMSAHead',
        head=dict(
            type='FCNHead',
            channels=256,
            num_convs=2,
            concat_input=False,
            dropout_ratio=0.0,
            loss_decode=dict(type='RMILoss'),
        ),
    ),
    train_scales=(0.5, 1.0),
    test_scales=(0.5, 1.0, 2.0),
)
train_cfg = dict(max_epochs=200)
param_scheduler = [dict(type='PolyLRToEnd', power=1.0, by_epoch=True, begin=0, end=200)]
