"""ADE20K with segments, 150 classes (100 things); crop 512x512.

It lies under data/ade/ADEChallengeData2016, as in MMSegmentation. The folder also needs
``annotations_instance``, from annotations_instance.tar of the Places Challenge 2017. OneFormer's
augmentation: a short side of 0.5 to 2 times 512 pixels; small images are padded with grey, their
labels with void.
"""

_base_ = './loaders_panoptic.py'
crop_size = (512, 512)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadPanoptic'),
    dict(
        type='RandomChoiceResize',
        scales=[256, 307, 358, 409, 460, 512, 563, 614, 665, 716, 768] + [819, 870, 921, 972, 1024],
        resize_type='ResizeShortestEdge',
        max_size=2048,
    ),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PadPanoptic', size=crop_size, pad_val=dict(img=128)),
    dict(type='PackPanopticInputs'),
]
resize = dict(type='Resize', scale=(2048, 512), keep_ratio=True)
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
        type='ADE20KPanopticDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(
            img_path='images/training',
            seg_map_path='annotations/training',
            instance_path='annotations_instance/training',
        ),
        pipeline=train_pipeline,
    )
)
auto_scale_lr = dict(base_batch_size=16)
val_dataloader = dict(
    dataset=dict(
        type='ADE20KPanopticDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(
            img_path='images/validation',
            seg_map_path='annotations/validation',
            instance_path='annotations_instance/validation',
        ),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='ClassIoUMetric', iou_metrics=['mIoU']),
    dict(type='PanopticQuality'),
    dict(type='InstanceAP', max_per_image=255),  # as the data set's own evaluation
]
test_evaluator = val_evaluator
# release_test.zip, unpacked into data/ade: tools/test.py --format-only
server_prefix = dict(img_path='../release_test/testing')
