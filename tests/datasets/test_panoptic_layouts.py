"""Segments of Cityscapes, streets and ADE20K in their own layouts, and the bases of the configs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine import Config
from mmseg.registry import DATASETS

from mmseg_ext.datasets.panoptic.ade20k import STUFF, THINGS
from mmseg_ext.errors import UserError
from tests.datasets.panoptic_files import (
    ade_config,
    cityscapes_config,
    classes_of_segments,
    ids_of,
    ids_of_a_picture,
    panoptic_config,
    write,
    write_ade,
    write_ids,
)
from tests.tiny import CONFIG_DIR

# ---- Cityscapes, streets and ADE20K ----


def test_instance_ids_and_cocos_form_of_streets_are_the_same(streets: Path) -> None:
    cityscapes = DATASETS.build(cityscapes_config(streets))
    coco = DATASETS.build(
        dict(
            type='CocoPanopticDataset',
            data_root=str(streets),
            ann_file='annotations/panoptic_train.json',
            data_prefix=dict(
                img_path='leftImg8bit/train', seg_map_path='annotations/panoptic_train'
            ),
            pipeline=panoptic_config(streets)['pipeline'],
        )
    )
    assert cityscapes.metainfo['classes'] == coco.metainfo['classes']
    assert (
        cityscapes.metainfo['thing_classes'] == coco.metainfo['thing_classes'] == (*range(11, 19),)
    )
    assert cityscapes.metainfo['palette'] == coco.metainfo['palette']
    by_path = {item['data_samples'].img_path: item['data_samples'] for item in coco}
    crowds = things = 0
    for item in cityscapes:
        sample = item['data_samples']
        other = by_path[sample.img_path]
        assert (ids_of(sample) == ids_of(other)).all()
        assert (sample.gt_sem_seg.data == other.gt_sem_seg.data).all()
        assert sample.segments_info == other.segments_info
        crowds += sum(s['iscrowd'] for s in sample.segments_info)
        things += sum(s['isthing'] for s in sample.segments_info)
    assert things > 20
    assert all(
        s['isthing'] for item in coco for s in item['data_samples'].segments_info if s['iscrowd']
    )


def test_instance_ids_are_read_as_cityscapes_defines_them(tmp_path: Path) -> None:
    ids = np.array([[0, 7, 7, 23], [26, 26000, 26001, 4], [24012, 24, 29, 29003]], np.uint16)
    write(tmp_path / 'gtFine/train/a/a_gtFine_instanceIds.png', ids)
    write(tmp_path / 'leftImg8bit/train/a/a_leftImg8bit.png', np.zeros((3, 4, 3), np.uint8))
    sample = DATASETS.build(cityscapes_config(tmp_path))[0]['data_samples']
    assert ids_of(sample).tolist() == [[0, 7, 7, 23], [26, 26000, 26001, 0], [24012, 24, 0, 0]]
    assert sample.gt_sem_seg.data[0].tolist() == [
        [255, 0, 0, 10],
        [13, 13, 13, 255],
        [11, 11, 255, 255],
    ]
    assert {s['id'] for s in sample.segments_info if s['iscrowd']} == {24, 26}
    data = DATASETS.build(
        cityscapes_config(tmp_path, metainfo=dict(classes=('car', 'person', 'sky')))
    )
    assert data.metainfo['thing_classes'] == (0, 1)
    sample = data[0]['data_samples']
    assert sample.gt_sem_seg.data[0].tolist() == [
        [255, 255, 255, 2],
        [0, 0, 0, 255],
        [1, 1, 255, 255],
    ]


def test_ade20k_joins_both_downloads(tmp_path: Path) -> None:
    data = DATASETS.build(ade_config(write_ade(tmp_path)))
    assert len(STUFF) == 50 and len(THINGS) == 100
    names = [data.metainfo['classes'][i].strip() for i in THINGS]
    assert names[:3] + names[-2:] == ['bed', 'windowpane', 'cabinet', 'clock', 'flag']
    pairs = zip(data.metainfo['full_names'], data.metainfo['classes'], strict=True)
    other = {'television receiver': 'television'}  # the only one with another first name
    assert all(full.split(', ')[0] == other.get(name, name.strip()) for full, name in pairs)
    sample = data[0]['data_samples']
    assert ids_of(sample).tolist() == [[1, 1, 257, 257], [1, 258, 258, 0], [0, 1, 1, 0]]
    assert sample.gt_sem_seg.data[0].tolist() == [[0, 0, 7, 7], [0, 7, 7, 12], [255, 0, 0, 12]]
    assert [(s['category_id'], s['isthing']) for s in sample.segments_info] == [
        (0, False), (7, True), (7, True),
    ]  # fmt: skip
    chosen = DATASETS.build(ade_config(tmp_path, metainfo=dict(classes=('person', 'bed '))))
    assert chosen.metainfo['thing_classes'] == (0, 1)
    assert chosen.metainfo['full_names'][0].startswith('person, individual, ')
    sample = chosen[0]['data_samples']
    assert sample.gt_sem_seg.data[0].tolist() == [
        [255, 255, 1, 1], [255, 1, 1, 0], [255, 255, 255, 0],
    ]  # fmt: skip


# ---- the bases of the configs ----


def coco_download(root: Path, classes: tuple[str, ...], split: str) -> None:
    """The picture in the layout of COCO's download, panoptic and instances."""
    ids, name = ids_of_a_picture(), f'{split}2017'
    write_ids(root / f'annotations/panoptic_{name}/a.png', ids)
    write(root / name / 'a.jpg', np.full((*ids.shape, 3), 80, np.uint8))
    common: dict[str, Any] = dict(
        images=[dict(id=5, file_name='a.jpg', height=40, width=60)],
        categories=[
            dict(id=i + 10, name=c, isthing=int(i < 80), color=[i, i, i])
            for i, c in enumerate(classes)
        ],
    )
    segments = [
        dict(id=255, category_id=100, iscrowd=0),
        dict(id=70000, category_id=10, iscrowd=0),
        dict(id=70001, category_id=11, iscrowd=0),
        dict(id=3, category_id=11, iscrowd=1),
    ]
    polygon = [[5, 5, 20, 5, 20, 20, 5, 20]]
    objects = [
        dict(id=7, image_id=5, category_id=10, segmentation=polygon, area=225, bbox=[5, 5, 15, 15])
    ]
    panoptic = [dict(image_id=5, file_name='a.png', segments_info=segments)]
    for kind, annotations in (('panoptic', panoptic), ('instances', objects)):
        path = root / f'annotations/{kind}_{name}.json'
        path.write_text(json.dumps(dict(common, annotations=annotations)))


def shrink(pipeline: list[dict], factor: int) -> list[dict]:
    """A pipeline for pictures of a fraction of the size."""
    for transform in pipeline:
        for key in ('scale', 'size', 'crop_size'):
            if key in transform:
                transform[key] = tuple(value // factor for value in transform[key])
        if 'scales' in transform:
            transform.scales = [value // factor for value in transform.scales]
            transform.max_size //= factor
    return pipeline


@pytest.mark.parametrize(
    ('name', 'factor', 'crop', 'classes', 'things'),
    [
        ('cityscapes_panoptic', 8, (64, 128), 19, 8),
        ('cityscapes_instance', 8, None, 8, 8),
        ('streets_panoptic', 2, (128, 256), 19, 8),
        ('streets_instance', 2, (128, 256), 8, 8),
        ('ade20k_panoptic', 8, (64, 64), 150, 100),
        ('coco_panoptic', 16, (64, 64), 133, 80),
        ('coco_instance', 20, None, 80, 80),
    ],
)
def test_every_base_reads_its_layout(
    name: str, factor: int, crop: Any, classes: int, things: int, streets: Path, tmp_path: Path
) -> None:
    cfg = Config.fromfile(CONFIG_DIR / f'_base_/datasets/{name}.py')
    root = streets
    if 'ade20k' in name:
        root = write_ade(tmp_path)
        for folder in ('images', 'annotations', 'annotations_instance'):
            (root / folder / 'training').rename(root / folder / 'validation')
        write_ade(tmp_path)
    if 'coco' in name:
        root = tmp_path
        for split in ('train', 'val'):
            (root / f'annotations/panoptic_{split}2017').mkdir(parents=True)
            coco_download(root, tuple(cfg.classes), split)
    assert [e['type'] for e in cfg.val_evaluator] == [
        'ClassIoUMetric',
        *(['PanopticQuality'] if 'panoptic' in name else []),
        'InstanceAP',
    ]
    for split in ('train', 'val', 'test'):
        config = cfg[f'{split}_dataloader'].dataset
        config.update(data_root=str(root), pipeline=shrink(config.pipeline, factor))
        np.random.seed(0)
        data = DATASETS.build(dict(config, serialize_data=False))
        item, meta = data[0], data.metainfo
        sample = item['data_samples']
        assert (len(meta['classes']), len(meta['thing_classes'])) == (classes, things)
        assert len(meta['palette']) == classes
        assert ('gt_instances' in sample) == (
            'instance' in name and (split == 'train' or 'coco' in name)
        )
        if split == 'train' and crop:
            assert item['inputs'].shape[1:] == ids_of(sample).shape == crop
        if 'coco_instance' not in name:
            shown = sample.gt_sem_seg.data[0].numpy()
            assert (classes_of_segments(sample) == shown)[shown != 12].all()  # a person of ADE20K


def test_wrong_labels_of_cityscapes_and_ade20k_get_a_sentence(
    tmp_path: Path, streets: Path
) -> None:
    write(tmp_path / 'c/gtFine/train/a/a_gtFine_labelIds.png', np.zeros((3, 4), np.uint8))
    write(tmp_path / 'c/leftImg8bit/train/a/a_leftImg8bit.png', np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(UserError, match='a_gtFine_instanceIds.png, the instances of the first'):
        DATASETS.build(cityscapes_config(tmp_path / 'c'))
    write(tmp_path / 'c/gtFine/train/a/a_gtFine_instanceIds.png', np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(UserError, match='instanceIds.png has colours'):
        DATASETS.build(cityscapes_config(tmp_path / 'c'))[0]
    root = write_ade(tmp_path / 'ade')
    objects = np.zeros((3, 4, 3), np.uint8)
    objects[..., 2] = 101
    write(root / 'annotations_instance/training/a.png', objects)
    with pytest.raises(UserError, match='has the category 101 in red'):
        DATASETS.build(ade_config(root))[0]
    write(root / 'annotations_instance/training/a.png', objects[:2])
    with pytest.raises(UserError, match='both must have the same size'):
        DATASETS.build(ade_config(root))[0]
    config = ade_config(root)
    config['data_prefix']['instance_path'] = 'none'
    with pytest.raises(UserError, match='none, the folder of the instances, is missing'):
        DATASETS.build(config)
