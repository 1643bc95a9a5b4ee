"""COCO 2017 panoptic, 133 classes (80 things), under data/coco; crop 1024x1024.

    data/coco/annotations/panoptic_{train,val}2017.json     and folders of this name with png files
    data/coco/{train,val}2017/*.jpg

OneFormer's augmentation: large-scale jitter of 0.1 to 2 times 1024 pixels, padded with grey. Other
data in COCO's panoptic form: a child config with ``metainfo=dict(_delete_=True)`` in its data sets
takes the classes of their json.
"""

_base_ = './loaders_panoptic.py'
crop_size = (1024, 1024)
classes = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog',
    'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich',
    'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch',
    'potted plant', 'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote',
    'keyboard', 'cell phone', 'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book',
    'clock', 'vase', 'scissors', 'teddy bear', 'hair drier', 'toothbrush', 'banner', 'blanket',
    'bridge', 'cardboard', 'counter', 'curtain', 'door-stuff', 'floor-wood', 'flower', 'fruit',
    'gravel', 'house', 'light', 'mirror-stuff', 'net', 'pillow', 'platform', 'playingfield',
    'railroad', 'river', 'road', 'roof', 'sand', 'sea', 'shelf', 'snow', 'stairs', 'tent',
    'towel', 'wall-brick', 'wall-stone', 'wall-tile', 'wall-wood', 'water-other', 'window-blind',
    'window-other', 'tree-merged', 'fence-merged', 'ceiling-merged', 'sky-other-merged',
    'cabinet-merged', 'table-merged', 'floor-other-merged', 'pavement-merged', 'mountain-merged',
    'grass-merged', 'dirt-merged', 'paper-merged', 'food-other-merged', 'building-other-merged',
    'rock-merged', 'wall-other-merged', 'rug-merged',
)  # fmt: skip
metainfo = dict(classes=classes)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=crop_size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PadPanoptic', size=crop_size, pad_val=dict(img=128)),
    dict(type='PackPanopticInputs'),
]
resize = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
test_pipeline = [
    dict(type='LoadImage'),
    resize,
    dict(type='LoadPanoptic'),  # after the resize: labels keep their size
    dict(type='PackPanopticInputs'),
]
tta_pipeline = [
    dict(type='LoadImage'),
    resize,
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadPanoptic')],
            [dict(type='PackPanopticInputs')],
        ],
    ),
]

train_dataloader = dict(
    dataset=dict(
        type='CocoPanopticDataset',
        data_root='data/coco',
        ann_file='annotations/panoptic_train2017.json',
        data_prefix=dict(img_path='train2017', seg_map_path='annotations/panoptic_train2017'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    )
)
auto_scale_lr = dict(base_batch_size=16)
val_dataloader = dict(
    dataset=dict(
        type='CocoPanopticDataset',
        data_root='data/coco',
        ann_file='annotations/panoptic_val2017.json',
        data_prefix=dict(img_path='val2017', seg_map_path='annotations/panoptic_val2017'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
