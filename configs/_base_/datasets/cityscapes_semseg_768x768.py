"""Cityscapes with the augmentation of hszhao/semseg, on which SPNet is built; crop 768x768."""

_base_ = './cityscapes.py'
crop_size = (768, 768)
mean = (103.53, 116.28, 123.675)  # BGR
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadSegMap'),
    # official: any factor from 0.5 to 1.75; here in steps of 0.05
    dict(
        type='RandomChoice',
        transforms=[[dict(type='Resize', scale_factor=n / 20)] for n in range(10, 36)],
    ),
    dict(type='RandomRotate', prob=0.5, degree=1.0, pad_val=mean, seg_pad_val=255),
    # official: the 5x5 kernel of OpenCV, whose standard deviation is 1 pixel
    dict(
        type='RandomApply',
        prob=0.5,
        transforms=[dict(type='RandomGaussianBlur', sigma_range=(1.0, 1.0))],
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=crop_size, pad_val=dict(img=mean, seg=255)),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=s) for s in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadSegMap')],  # after the resize: labels keep their size
            [dict(type='PackSegInputs')],
        ],
    ),
]
tta_model = dict(type='SegTTAModel')  # averages probabilities, as released
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
