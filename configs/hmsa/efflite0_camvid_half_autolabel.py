"""EfficientNet-Lite0 and a small FPN head, every second label of CamVid, a model's for the others.

The commands of efflite0_camvid_half.py, and then
python tools/train.py configs/hmsa/efflite0_camvid_half_autolabel.py

Batch 8, 16 epochs, full images, for one CPU core. Results: README.md beside this file.
"""

_base_ = '../fcn/efflite0_camvid.py'
labelled = dict(_base_.train_dataloader.dataset, indices=list(range(0, 367, 2)))
auto_labelled = dict(
    type='PseudoLabelDataset',
    data_root=labelled['data_root'],
    data_prefix=dict(img_path='train', seg_map_path='autolabels/train'),
    indices=list(range(1, 367, 2)),
    pipeline=[
        dict(type='LoadImage'),
        dict(type='LoadPseudoLabels', threshold=0.9),
        *_base_.train_pipeline[2:],
    ],
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[labelled, auto_labelled],
    )
)
