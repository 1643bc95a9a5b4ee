"""Transforms carry segments, and masks that overlap, with image and classes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS

from mmseg_ext.datasets.panoptic.labels import PanopticLabel, segment, slots_of, table_of_slots
from mmseg_ext.datasets.panoptic.transforms import LoadPanoptic, PackPanopticInputs
from mmseg_ext.errors import UserError
from tests.datasets.conftest import SMALL
from tests.datasets.panoptic_files import (
    COCO,
    cityscapes_config,
    classes_of_segments,
    ids_of,
    instance_config,
    needs_coco,
)

RESIZED = dict(type='Resize', scale=(300, 130), keep_ratio=False)
TRANSFORMS = {
    'resize': [RESIZED],
    'scale and crop': [dict(type='RandomScaleCrop', crop_size=(150, 250), ratio_range=(0.5, 2.0))],
    'crop': [dict(type='RandomCrop', crop_size=(50, 70), cat_max_ratio=0.75)],
    'flip': [dict(type='RandomFlip', prob=1.0)],
    'rotate': [dict(type='RandomRotate', prob=1.0, degree=20)],
    'pad': [dict(type='PadPanoptic', size=(256, 120))],
    'all': [
        dict(type='RandomResize', scale=(192, 96), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(90, 150)),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PadPanoptic', size=(160, 96)),
    ],
}


@pytest.mark.parametrize('name', TRANSFORMS)
def test_transforms_carry_segments_with_the_classes(name: str, streets: Path) -> None:
    data = DATASETS.build(cityscapes_config(streets, TRANSFORMS[name]))
    for seed in range(6):
        np.random.seed(seed)
        item = data[seed % 3]
        sample = item['data_samples']
        assert ids_of(sample).shape == item['inputs'].shape[1:]
        assert (classes_of_segments(sample) == sample.gt_sem_seg.data[0].numpy()).all()
        assert {item['id'] for item in sample.segments_info} == set(np.unique(ids_of(sample))) - {0}
        if name in ('pad', 'rotate'):
            assert ids_of(sample)[-1, -1] == 0
        if 'crop' not in name and name != 'all':
            assert len(sample.segments_info) > 5


def test_the_hosts_pad_gets_a_sentence(streets: Path) -> None:
    data = DATASETS.build(cityscapes_config(streets, [dict(type='Pad', size=(256, 120))]))
    with pytest.raises(UserError, match='256x120 and the segments 192x96: use PadPanoptic'):
        data[0]


def test_ids_move_with_their_pixels(streets: Path) -> None:
    plain = DATASETS.build(cityscapes_config(streets))[0]['data_samples']
    flipped = DATASETS.build(cityscapes_config(streets, TRANSFORMS['flip']))[0]['data_samples']
    resized = DATASETS.build(cityscapes_config(streets, TRANSFORMS['resize']))[0]['data_samples']
    assert (ids_of(flipped) == ids_of(plain)[:, ::-1]).all()
    expected = cv2.resize(
        ids_of(plain).astype(np.float32), (300, 130), interpolation=cv2.INTER_NEAREST
    )
    assert (ids_of(resized) == expected).all()


def test_more_segments_than_the_value_of_padding() -> None:
    class Many:
        def read(self) -> PanopticLabel:
            table = table_of_slots(range(400), 0, np.int32)
            slots = np.resize(slots_of(400), (20, 20))
            assert (table[slots] == np.resize(np.arange(400), (20, 20))).all()
            segments = [segment(i + 1, i % 150, thing=True) for i in range(400)]
            return PanopticLabel(slots, segments)

    results = dict(img=np.zeros((20, 20, 3), np.uint8), seg_fields=[], panoptic=Many())
    sample = PackPanopticInputs()(LoadPanoptic()(results))['data_samples']
    assert (ids_of(sample) == np.resize(np.arange(1, 401), (20, 20))).all()
    assert len(sample.segments_info) == 400
    with pytest.raises(UserError, match='70000 segments'):
        slots_of(70000)


def test_test_time_augmentation_and_resizing_keep_the_label_of_the_file(streets: Path) -> None:
    config = cityscapes_config(streets)
    config['pipeline'] = [
        dict(type='LoadImage'),
        dict(type='Resize', scale=(96, 48)),
        dict(
            type='TestTimeAug',
            transforms=[
                [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
                [dict(type='LoadPanoptic')],
                [dict(type='PackPanopticInputs')],
            ],
        ),
    ]
    item = DATASETS.build(config)[0]
    for sample in item['data_samples']:
        assert ids_of(sample).shape == SMALL


@needs_coco
def test_masks_that_overlap_are_transformed_with_the_image() -> None:
    plain = DATASETS.build(instance_config(COCO / 'tiny', 'val2017'))
    flipped = DATASETS.build(instance_config(COCO / 'tiny', 'val2017', TRANSFORMS['flip']))
    padded = DATASETS.build(
        instance_config(COCO / 'tiny', 'val2017', [dict(type='PadPanoptic', size=(700, 720))])
    )
    for a, b, c in zip(plain, flipped, padded, strict=True):
        masks, mirrored, larger = (x['data_samples'].gt_instances.masks for x in (a, b, c))
        assert (mirrored == masks.flip(2)).all()
        h, w = masks.shape[1:]
        assert (larger[:, :h, :w] == masks).all() and larger.sum() == masks.sum()
