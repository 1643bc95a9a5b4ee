"""FastFCN (arXiv 1903.11816), EncNet's head, ResNet-101: ADE20K's test server, second stage.

bash tools/dist_train.sh configs/fastfcn/r101_jpu_encnet_ade20k_trainval.py 4 --init CHECKPOINT

CHECKPOINT is a training of r101_jpu_encnet_ade20k.py. Paper: final score 55.84 on test, the mean of
mIoU and pixel accuracy; 55.67 with a dilated backbone. Ours: not measured. Trains on train and val.
Batch 16 (4 GPUs x 4), 20 epochs, crop 480x480.
"""

_base_ = './r101_jpu_encnet_ade20k.py'
initial_weights = 'a training of configs/fastfcn/r101_jpu_encnet_ade20k.py'
ade = dict(
    type='ADE20KDataset', data_root='data/ade/ADEChallengeData2016', pipeline=_base_.train_pipeline
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                ade,
                data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
            ),
            dict(
                ade,
                data_prefix=dict(
                    img_path='images/validation', seg_map_path='annotations/validation'
                ),
            ),
        ],
    )
)
optim_wrapper = dict(optimizer=dict(lr=0.001))
train_cfg = dict(max_epochs=20)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, begin=0, end=20, **_base_.per_iter)]
# it trains on val: the last checkpoint counts
default_hooks = dict(checkpoint=dict(save_best=None))
