"""DeepGlobe land cover, 7 classes, 2448x2448, under data/deepglobe; crop 508x508.

    DIR/train/NUMBER_sat.jpg    image
    DIR/train/NUMBER_mask.png   colours of the classes
    DIR/train.txt, val.txt, test.txt    numbers of the images, one per line

Only the images of ``train`` have masks; the lists split them. Papers use the lists of GLNet
(chenwydj/ultra_high_resolution_segmentation): 454, 207 and 142 images.
"""

_base_ = './loaders.py'
load_mask = dict(type='LoadColorSegMap', threshold=128)
train_pipeline = [
    dict(type='LoadImage'),
    load_mask,
    # a crop or the whole image; official: crops of 612 always from the top left corner
    dict(
        type='RandomChoice',
        transforms=[[dict(type='RandomCrop', crop_size=(n, n))] for n in (612, 1224, 2448)],
    ),
    dict(type='Resize', scale=(508, 508)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImage'), load_mask, dict(type='PackSegInputs')]
folders = dict(img_path='train', seg_map_path='train')
dataset = dict(type='DeepGlobeDataset', data_root='data/deepglobe', data_prefix=folders)
train_dataloader = dict(dataset=dict(ann_file='train.txt', pipeline=train_pipeline, **dataset))
val_dataloader = dict(dataset=dict(ann_file='val.txt', pipeline=test_pipeline, **dataset))
test_dataloader = dict(dataset=dict(ann_file='test.txt', pipeline=test_pipeline, **dataset))
tta_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [load_mask],
            [dict(type='PackSegInputs')],
        ],
    ),
]
# predictions on unknown ground count as errors, but the mean omits the IoU of unknown
val_evaluator = test_evaluator = dict(unscored=('unknown',))
