"""OneFormer (arXiv 2211.06220), ResNet-50 with frozen norms, COCO panoptic.

bash tools/dist_train.sh configs/oneformer/r50_coco_panoptic.py 8 --amp
python tools/test.py configs/oneformer/r50_coco_panoptic.py CHECKPOINT

The released repository has this config, and no score of it. Ours: not measured. Batch 16 (8 GPUs x
2), 368,750 iterations (50 epochs), crop 1024x1024.
"""

_base_ = [
    '../_base_/models/oneformer_r50.py',
    '../_base_/datasets/coco_panoptic.py',
    '../_base_/schedules/oneformer_90k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    num_classes=133,
    backbone=dict(norm_cfg=dict(type='FrozenBN', requires_grad=False)),
    test_cfg=dict(max_instances=100),
)
targets = dict(type='OneFormerTargets')  # the last transform
train_dataloader = dict(
    batch_size=2, num_workers=4, dataset=dict(pipeline=[*_base_.train_pipeline, targets])
)
train_cfg = dict(max_iters=368750)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=10),
    dict(type='MultiStepLR', by_epoch=False, milestones=[327778, 355092], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(save_best='PQ', rule='greater'))
tta_model = dict(type='SegTTAModel')  # averages probabilities, as the released code
