"""A folder of images and masks with three classes, and a config that trains on it in a second."""

from pathlib import Path

import cv2
import numpy as np
from mmengine.visualization import Visualizer
from mmseg.visualization import SegLocalVisualizer

from mmseg_ext.visualization.visualizer import SegmentsVisualizer

CLASSES = ('wall', 'floor', 'cat')

CONFIG = """
crop_size = (32, 32)
classes = {classes!r}
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')],
    ]),
]
tta_model = dict(type='SegTTAModel')
common = dict(
    type='BaseSegDataset', data_root={root!r}, metainfo=dict(classes=classes), img_suffix='.png')
train_dataloader = dict(
    batch_size=2, num_workers={workers}, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='RepeatDataset', times=2, dataset=dict(
        **common, data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        pipeline=train_pipeline)))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **common, data_prefix=dict(img_path='images/val', seg_map_path='labels/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[50.0] * 3, size=crop_size, pad_val=0,
        seg_pad_val=255),
    backbone=dict(type='ResNetV1c', depth=18, base_channels=8, norm_cfg=dict(type='BN'),
                  init_cfg=None),
    decode_head=dict(type='FCNHead', in_channels=64, channels=8, num_convs=1, num_classes=3),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(16, 24)))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=40, by_epoch=False),
    dict(type='PolyLR', begin=40, end=400, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=400, val_interval=100)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    runtime_info=dict(type='DeferredRuntimeInfoHook'),
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='AtomicCheckpointHook', interval=100, save_best='mIoU'),
    visualization=dict(type='SegVisualizationHook'))
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(by_epoch=False)
default_scope = 'mmseg'
runner_type = 'ResumableRunner'
"""


def write_pair(root: Path, name: str, *, size: tuple[int, int] = (40, 48), seed: int = 0) -> None:
    """An image of noise over three stripes, and its label; ``name`` is ``train/0``, size (h, w)."""
    rng = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    label[size[0] // 2 :] = 1
    label[-4:, -8:] = 2
    label[0, 0] = 255
    image = 60 * np.minimum(label, 3)[..., None] + rng.integers(0, 50, (*size, 3))
    for folder, array in (('images', image), ('labels', label)):
        path = root / folder / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), array.astype(np.uint8))


def write_folder(root: Path, *, train: int = 4, val: int = 2) -> Path:
    for split, count in (('train', train), ('val', val)):
        for i in range(count):
            write_pair(root, f'{split}/{i}', seed=i)
    return root


def write_config(
    path: Path, root: Path, *, extra: str = '', classes: tuple[str, ...] = CLASSES, workers: int = 0
) -> Path:
    path.write_text(CONFIG.format(root=str(root), classes=classes, workers=workers) + extra)
    return path


def forget_visualizers() -> None:
    """Makes the next run in this process draw with its own visualizer, as a command does."""
    for visualizer in (Visualizer, SegLocalVisualizer, SegmentsVisualizer):
        visualizer._instance_dict.clear()
