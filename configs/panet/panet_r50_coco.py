"""PANet (arXiv 1803.01534), ResNet-50, COCO instances: the released recipe.

bash tools/dist_train.sh configs/panet/panet_r50_coco.py 8
python tools/test.py configs/panet/panet_r50_coco.py CHECKPOINT

Released code on val: 43.1 box AP, 38.3 mask AP; paper: 42.1 and 37.8. Ours: not measured. Batch 16
(8 GPUs x 2), 180k iterations, short sides of 400 to 1200 pixels.
"""

_base_ = [
    '../_base_/models/panet_r50.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/panet_180k.py',
    '../_base_/default_runtime.py',
]
train_dataloader = dict(batch_size=2, num_workers=4)
default_hooks = dict(checkpoint=dict(save_best='AP', rule='greater'))
tta_model = dict(type='SegTTAModel')  # of the semantic result
