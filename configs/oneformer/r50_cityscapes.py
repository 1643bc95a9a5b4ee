"""OneFormer (arXiv 2211.06220), ResNet-50, Cityscapes.

bash tools/dist_train.sh configs/oneformer/r50_cityscapes.py 8 --amp
python tools/test.py configs/oneformer/r50_cityscapes.py CHECKPOINT --task semantic

The released repository has this config, and no score of it. Ours: not measured. Batch 16 (8 GPUs x
2), 90k iterations, crop 512x1024.
"""

_base_ = [
    '../_base_/models/oneformer_r50.py',
    '../_base_/datasets/cityscapes_panoptic.py',
    '../_base_/schedules/oneformer_90k.py',
    '../_base_/default_runtime.py',
]
targets = dict(type='OneFormerTargets')  # the last transform
train_dataloader = dict(
    batch_size=2, num_workers=4, dataset=dict(pipeline=[*_base_.train_pipeline, targets])
)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(save_best='PQ', rule='greater'))
tta_model = dict(type='SegTTAModel')  # averages probabilities, as the released code
