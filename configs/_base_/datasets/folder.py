"""A folder of your images and masks; a config of five lines trains on it.

    DIR/images/train/**/NAME.jpg    any of .jpg .jpeg .png .bmp .tif .tiff
    DIR/images/val/**/NAME.jpg
    DIR/masks/train/**/NAME.png     one channel, class indices from 0; 255 is ignored
    DIR/masks/val/**/NAME.png

    _base_ = ['../_base_/models/r18-d8.py', '../_base_/datasets/folder.py',
              '../_base_/schedules/80k.py', '../_base_/default_runtime.py']
    dataset = dict(data_root='DIR', metainfo=dict(classes=('other', 'road')), label_map={255: 1})
    train_dataloader = dict(dataset=dataset)
    val_dataloader = test_dataloader = dict(dataset=dataset)
    model = dict(num_classes=2, decode_head=dict(type='PSPHead', channels=256))

``label_map`` turns values of the mask files into classes; omit it if they are classes already.
Other keys of a data set: ``seg_map_suffix`` (``_mask.png`` for masks/train/NAME_mask.png),
``img_suffix``, ``reduce_zero_label``, ``data_prefix`` for other folders, and ``metainfo.palette``
for the RGB colour of each class. Crop 512x512, or --crop-size H W.
"""

_base_ = './loaders.py'
crop_size = (512, 512)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    dataset=dict(
        type='FolderDataset',
        data_root='data/folder',
        data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type='FolderDataset',
        data_root='data/folder',
        data_prefix=dict(img_path='images/val', seg_map_path='masks/val'),
    )
)
test_dataloader = val_dataloader
