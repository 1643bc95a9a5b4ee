"""OneFormer (arXiv 2211.06220), ResNet-50 with frozen norms, ADE20K.

bash tools/dist_train.sh configs/oneformer/r50_ade20k.py 8 --amp
python tools/test.py configs/oneformer/r50_ade20k.py CHECKPOINT --task semantic

The released repository has this config, and no score of it. Ours: not measured. Batch 16 (8 GPUs x
2), 160k iterations, crop 512x512.
"""

_base_ = [
    '../_base_/models/oneformer_r50.py',
    '../_base_/datasets/ade20k_panoptic.py',
    '../_base_/schedules/oneformer_90k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=150,
    backbone=dict(norm_cfg=dict(type='FrozenBN', requires_grad=False)),
    test_cfg=dict(object_mask_threshold=0.5),
)
targets = dict(type='OneFormerTargets')  # the last transform
train_dataloader = dict(
    batch_size=2, num_workers=4, dataset=dict(pipeline=[*_base_.train_pipeline, targets])
)
train_cfg = dict(max_iters=160000)
param_scheduler = [dict(type='PolyLRToEnd', power=0.9, by_epoch=False, begin=0, end=160000)]
default_hooks = dict(checkpoint=dict(save_best='PQ', rule='greater'))
tta_model = dict(type='SegTTAModel')  # averages probabilities, as the released code
