"""Small data sets with segments, and the folder of real COCO data, for several test files."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmseg.structures import SegDataSample

from tests.parity.case import SHARED

COCO = SHARED / 'coco'
needs_coco = pytest.mark.skipif(not COCO.is_dir(), reason=f'no real COCO data in {COCO}')
CATEGORIES: list[dict[str, Any]] = [  # ids with gaps, not in order
    dict(id=70, name='wall', isthing=0, color=[90, 90, 90]),
    dict(id=7, name='cat', isthing=1, color=[200, 60, 60]),
    dict(id=300, name='dog', isthing=1, color=[60, 60, 200]),
]


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def write_ids(path: Path, ids: np.ndarray) -> None:
    """Writes segment ids as COCO's panoptic png; OpenCV's order is blue, green, red."""
    write(path, np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1).astype(np.uint8))


def ids_of_a_picture() -> np.ndarray:
    """Segments of a picture 40x60: wall, two cats, a crowd of dogs, and void below."""
    ids = np.full((40, 60), 255)  # 255 is the value of padded labels too
    ids[5:20, 5:20] = 70000
    ids[5:20, 25:40] = 70001
    ids[22:30, 30:55] = 3
    ids[34:] = 0
    return ids


SEGMENTS: list[dict[str, Any]] = [
    dict(id=255, category_id=70, iscrowd=0),
    dict(id=70000, category_id=7, iscrowd=0),
    dict(id=70001, category_id=7, iscrowd=0),
    dict(id=3, category_id=300, iscrowd=1),
]


def write_panoptic(root: Path, **changes: Any) -> Path:
    """Writes a data set in COCO's panoptic form: the picture, and one without any segment."""
    ids = ids_of_a_picture()
    for name, values in (('a', ids), ('b', ids * 0)):
        write_ids(root / f'labels/{name}.png', values)
        write(root / f'images/{name}.png', np.full((*ids.shape, 3), 80, np.uint8))
    content = dict(
        images=[dict(id=i, file_name=f'{n}.png', height=40, width=60) for i, n in enumerate('ab')],
        annotations=[
            dict(image_id=0, file_name='a.png', segments_info=SEGMENTS),
            dict(image_id=1, file_name='b.png', segments_info=[]),
        ],
        categories=CATEGORIES,
    )
    (root / 'panoptic.json').write_text(json.dumps(content | changes))
    return root


def panoptic_config(root: Path, **more: Any) -> dict[str, Any]:
    return dict(
        type='CocoPanopticDataset',
        serialize_data=False,  # the host collects garbage, which is slow
        data_root=str(root),
        ann_file='panoptic.json',
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=[
            dict(type='LoadImage'),
            dict(type='LoadPanoptic'),
            dict(type='PackPanopticInputs'),
        ],
        **more,
    )


def ids_of(sample: SegDataSample) -> np.ndarray:
    ids = sample.gt_panoptic_seg.panoptic_seg
    assert ids.dtype == torch.int32 and ids.shape[0] == 1
    return ids[0].numpy()


def classes_of_segments(sample: SegDataSample) -> np.ndarray:
    """Class of each pixel as its segment says, 255 for void."""
    ids, classes = ids_of(sample), np.full(ids_of(sample).shape, 255)
    for item in sample.segments_info:
        classes[ids == item['id']] = item['category_id']
    return classes


def cityscapes_config(root: Path, pipeline: list[dict] | None = None, **more: Any) -> dict:
    load = [dict(type='LoadImage'), dict(type='LoadPanoptic')]
    return dict(
        type='CityscapesPanopticDataset',
        serialize_data=False,
        data_root=str(root),
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=[*load, *(pipeline or []), dict(type='PackPanopticInputs')],
        **more,
    )


def write_ade(root: Path) -> Path:
    """A picture of a wall, a bed that is an object, a person without an object, and no class."""
    label = np.array([[1, 1, 8, 8], [1, 8, 8, 13], [0, 1, 1, 13]], np.uint8)
    objects = np.zeros((3, 4, 3), np.uint8)
    objects[0, 2:] = 0, 1, 1  # blue, number, category: bed is category 1
    objects[1, 1:3] = 0, 2, 1
    write(root / 'annotations/training/a.png', label)
    write(root / 'annotations_instance/training/a.png', objects)
    write(root / 'images/training/a.jpg', np.zeros((3, 4, 3), np.uint8))
    return root


def ade_config(root: Path, **more: Any) -> dict[str, Any]:
    prefix = dict(
        img_path='images/training',
        seg_map_path='annotations/training',
        instance_path='annotations_instance/training',
    )
    pipeline = panoptic_config(root)['pipeline']
    config = dict(data_root=str(root), data_prefix=prefix, pipeline=pipeline)
    return dict(type='ADE20KPanopticDataset', serialize_data=False, **config, **more)


def instance_config(root: Path, split: str, pipeline: list[dict] | None = None) -> dict[str, Any]:
    return dict(
        type='CocoInstanceDataset',
        serialize_data=False,
        data_root=str(root),
        ann_file=f'annotations/instances_{split}.json',
        data_prefix=dict(img_path=f'images/{split}'),
        pipeline=[
            dict(type='LoadImage'),
            dict(type='LoadPanoptic'),
            *(pipeline or []),
            dict(type='PackPanopticInputs'),
        ],
    )
