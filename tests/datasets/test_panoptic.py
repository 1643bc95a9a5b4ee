"""COCO's panoptic png and json and its json of instances: right, wrong and real files."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS
from pycocotools.coco import COCO as COCOApi

from mmseg_ext.datasets.checks import check_split
from mmseg_ext.datasets.panoptic.labels import decode_mask
from mmseg_ext.datasets.streets.coco_labels import run_lengths
from mmseg_ext.datasets.transforms import without_label_transforms
from mmseg_ext.errors import UserError
from tests.datasets.panoptic_files import (
    CATEGORIES,
    COCO,
    SEGMENTS,
    ade_config,
    cityscapes_config,
    classes_of_segments,
    ids_of,
    ids_of_a_picture,
    instance_config,
    needs_coco,
    panoptic_config,
    write,
    write_ade,
    write_ids,
    write_panoptic,
)

# ---- COCO's panoptic png and json ----


def test_a_panoptic_png_is_read_with_its_segments(tmp_path: Path) -> None:
    data = DATASETS.build(panoptic_config(write_panoptic(tmp_path)))
    meta = data.metainfo
    assert meta['classes'] == ('wall', 'cat', 'dog')
    assert meta['palette'] == [c['color'] for c in CATEGORIES]
    assert meta['thing_classes'] == (1, 2)
    sample = data[0]['data_samples']
    assert (ids_of(sample) == ids_of_a_picture()).all()
    assert sample.segments_info == [
        dict(id=255, category_id=0, isthing=False, iscrowd=False),
        dict(id=70000, category_id=1, isthing=True, iscrowd=False),
        dict(id=70001, category_id=1, isthing=True, iscrowd=False),
        dict(id=3, category_id=2, isthing=True, iscrowd=True),
    ]
    assert (sample.gt_sem_seg.data[0].numpy() == classes_of_segments(sample)).all()
    assert 'gt_instances' not in sample


def test_an_image_without_objects_is_all_void(tmp_path: Path) -> None:
    config = panoptic_config(write_panoptic(tmp_path))
    config['pipeline'][-1]['instances'] = True
    sample = DATASETS.build(config)[1]['data_samples']
    assert (ids_of(sample) == 0).all() and (sample.gt_sem_seg.data == 255).all()
    assert sample.segments_info == []
    assert sample.gt_instances.masks.shape == (0, 40, 60)
    assert sample.gt_instances.bboxes.shape == (0, 4)


def test_chosen_classes_have_the_given_order_and_the_others_are_void(tmp_path: Path) -> None:
    config = panoptic_config(write_panoptic(tmp_path), metainfo=dict(classes=('dog', 'wall')))
    data = DATASETS.build(config)
    assert data.metainfo['thing_classes'] == (0,)
    assert data.metainfo['palette'] == [CATEGORIES[2]['color'], CATEGORIES[0]['color']]
    sample = data[0]['data_samples']
    assert [item['category_id'] for item in sample.segments_info] == [1, 0]
    ids = ids_of_a_picture()
    assert (ids_of(sample) == np.where(ids >= 70000, 0, ids)).all()


def test_a_class_list_of_one(tmp_path: Path) -> None:
    data = DATASETS.build(
        panoptic_config(write_panoptic(tmp_path), metainfo=dict(classes=('cat',)))
    )
    sample = data[0]['data_samples']
    assert data.metainfo['thing_classes'] == (0,)
    assert set(np.unique(ids_of(sample))) == {0, 70000, 70001}
    assert set(np.unique(sample.gt_sem_seg.data)) == {0, 255}


def test_images_may_have_no_labels(tmp_path: Path, streets: Path) -> None:
    write_panoptic(tmp_path)
    config = panoptic_config(tmp_path)
    config['data_prefix'] = dict(img_path='images')  # as --format-only sets it
    configs = [config, cityscapes_config(streets), ade_config(write_ade(tmp_path / 'ade'))]
    for config in configs:
        config['data_prefix'] = dict(img_path=config['data_prefix']['img_path'])
    content = json.loads((tmp_path / 'panoptic.json').read_text())
    del content['annotations']
    (tmp_path / 'test.json').write_text(json.dumps(content))
    configs.append(dict(panoptic_config(tmp_path), ann_file='test.json'))
    for config in configs:
        pipeline = without_label_transforms(config['pipeline'])
        assert len(pipeline) == 2
        sample = DATASETS.build(dict(config, pipeline=pipeline))[0]['data_samples']
        assert 'gt_sem_seg' not in sample and 'gt_panoptic_seg' not in sample


def test_instances_are_the_things(tmp_path: Path) -> None:
    config = panoptic_config(write_panoptic(tmp_path))
    config['pipeline'][-1]['instances'] = True
    instances = DATASETS.build(config)[0]['data_samples'].gt_instances
    assert instances.labels.tolist() == [1, 1, 2]
    assert instances.iscrowd.tolist() == [False, False, True]
    assert instances.bboxes.tolist() == [[5, 5, 20, 20], [25, 5, 40, 20], [30, 22, 55, 30]]
    assert instances.masks.dtype == torch.bool
    assert [int(m.sum()) for m in instances.masks] == [225, 225, 200]


# ---- wrong files ----


def test_a_png_with_ids_that_the_json_does_not_list(tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    ids = ids_of_a_picture()
    ids[0, 0] = 70002
    write_ids(tmp_path / 'labels/a.png', ids)
    data = DATASETS.build(panoptic_config(tmp_path))
    with pytest.raises(UserError, match='a.png holds the segment id 70002, which .*panoptic.json'):
        data[0]


def with_json(root: Path, text: str) -> dict[str, Any]:
    (root / 'panoptic.json').write_text(text)
    return panoptic_config(root)


def changed(**changes: Any) -> Any:
    return lambda root: panoptic_config(write_panoptic(root, **changes))


NOT_PANOPTIC = [dict(image_id=0, id=1, category_id=7, segmentation=[[0, 0, 9, 0, 9, 9]])]
ONE_IMAGE = [dict(image_id=0, file_name='a.png', segments_info=SEGMENTS)]
TWO_IMAGES = [dict(image_id=i, file_name=f'{"ab"[i]}.png') for i in (0, 1)]
WRONG_CATEGORY = [
    dict(image_id=i, file_name='a.png', segments_info=[dict(id=3, category_id=8)]) for i in (0, 1)
]
WRONG = {
    'no json': (lambda root: dict(panoptic_config(root), ann_file='x.json'),
                'x.json does not exist'),
    'broken json': (lambda root: with_json(root, '{"images": ['), 'panoptic.json is no json'),
    'other json': (lambda root: with_json(root, '[1]'), 'no images and categories'),
    'instances': (changed(annotations=NOT_PANOPTIC), "'segments_info': read it with CocoInst"),
    'no image': (changed(images=[]), 'lists no image'),
    'no annotation': (changed(annotations=ONE_IMAGE), 'has 0 annotations of b.png'),
    'category': (changed(annotations=WRONG_CATEGORY), 'of the category 8, which its categories'),
    'no id': (changed(annotations=[dict(image_id=0, file_name='a.png', segments_info=[{}])] * 2),
              'has 2 annotations of a.png'),
    'no key': (changed(images=[dict(id=0)], annotations=ONE_IMAGE), "lacks the key 'file_name'"),
    'no segment key': (changed(annotations=[dict(image_id=i, file_name='a.png', segments_info=[{}])
                                            for i in (0, 1)]), "lacks the key 'category_id'"),
    'a list': (changed(categories=[7]), "is not in COCO's form"),
    'twice': (changed(annotations=[dict(a, segments_info=[SEGMENTS[0]] * 2) for a in TWO_IMAGES]),
              'two segments of the id 255 in a.png'),
    'void': (changed(annotations=[dict(a, segments_info=[dict(SEGMENTS[0], id=0)])
                                  for a in TWO_IMAGES]), 'two segments of the id 0 in a.png'),
    'isthing': (changed(categories=[dict(id=7, name='cat')]), "category 'cat' .* has no isthing"),
    'class': (lambda root: dict(panoptic_config(root), metainfo=dict(classes=('bird',))),
              "metainfo.classes has 'bird'.*wall, cat, dog"),
    'folder': (lambda root: dict(panoptic_config(root), data_prefix=dict(img_path='none')),
               'none does not exist'),
}  # fmt: skip


@pytest.mark.parametrize('name', WRONG)
def test_wrong_files_get_a_sentence_when_the_data_set_is_built(name: str, tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    make, message = WRONG[name]
    with pytest.raises(UserError, match=message) as error:
        DATASETS.build(make(tmp_path))
    assert '\n' not in str(error.value)


def test_a_missing_or_wrong_png_gets_a_sentence(tmp_path: Path) -> None:
    data = DATASETS.build(panoptic_config(write_panoptic(tmp_path)))
    path = tmp_path / 'labels/a.png'
    path.unlink()
    with pytest.raises(UserError, match='a.png, a panoptic label, does not exist'):
        data[0]
    path.write_bytes(b'x')
    with pytest.raises(UserError, match='a.png cannot be decoded as a panoptic label'):
        data[0]
    write(path, np.zeros((40, 60), np.uint8))
    with pytest.raises(UserError, match='a.png has no red, green and blue'):
        data[0]
    write_ids(path, np.zeros((40, 50), int))
    with pytest.raises(UserError, match='a.png is 50x40 and the image is 60x40'):
        data[0]


def test_semantic_labels_alone_get_a_sentence(streets: Path) -> None:
    config = dict(cityscapes_config(streets), type='CityscapesIdsDataset')
    data = DATASETS.build(config)
    assert data.metainfo['thing_classes'] == ()
    with pytest.raises(UserError, match='semantic labels only, and LoadPanoptic needs segments'):
        data[0]


def test_the_check_of_a_data_set_reads_segments(tmp_path: Path, streets: Path) -> None:
    report = check_split(cityscapes_config(streets))
    assert report.problems == [] and report.labels_read == 3
    assert report.pixels[0] > 0
    write_panoptic(tmp_path)
    ids = ids_of_a_picture()
    ids[0, 0] = 9
    write_ids(tmp_path / 'labels/a.png', ids)
    (tmp_path / 'labels/b.png').unlink()
    first, second = check_split(panoptic_config(tmp_path)).problems
    assert 'holds the segment id 9, which' in first
    assert 'b.png does not exist: add it or remove the image' in second


# ---- real data ----


@needs_coco
def test_the_real_panoptic_sample_is_read() -> None:
    data = DATASETS.build(
        dict(
            type='CocoPanopticDataset',
            data_root=str(COCO / 'panoptic'),
            ann_file='panoptic_examples.json',
            data_prefix=dict(img_path='input_images', seg_map_path='panoptic_examples'),
            pipeline=panoptic_config(COCO)['pipeline'],
        )
    )
    assert len(data) == 2 and len(data.metainfo['classes']) == 133
    assert data.metainfo['thing_classes'] == (*range(80),)
    content = json.loads((COCO / 'panoptic/panoptic_examples.json').read_text())
    number = 0
    for item, annotation in zip(data, content['annotations'], strict=True):
        sample = item['data_samples']
        ids, counts = np.unique(ids_of(sample), return_counts=True)
        area = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        assert [s['id'] for s in sample.segments_info] == [
            s['id'] for s in annotation['segments_info']
        ]
        for mine, listed in zip(sample.segments_info, annotation['segments_info'], strict=True):
            assert area[mine['id']] == listed['area']
            assert mine['iscrowd'] == bool(listed['iscrowd'])
            category = next(c for c in content['categories'] if c['id'] == listed['category_id'])
            assert data.metainfo['classes'][mine['category_id']] == category['name']
        number += len(sample.segments_info)
    assert number == 50


def test_masks_need_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    monkeypatch.setitem(sys.modules, 'pycocotools.mask', None)
    with pytest.raises(UserError, match='needs pycocotools: pip install pycocotools'):
        decode_mask([[0, 0, 9, 0, 9, 9]], (20, 20), 'a.json, annotation 3')


@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        ('x', "annotation 3: its segmentation is not in COCO's form"),
        (dict(size=[20, 20]), "annotation 3: its segmentation is not in COCO's form"),
        (dict(size=[30, 20], counts=[0, 600]), 'annotation 3: its mask is 20x30, .* is 20x20'),
    ],
)
def test_a_wrong_mask_gets_a_sentence(segmentation: Any, message: str) -> None:
    with pytest.raises(UserError, match=f'^a.json, {message}'):
        decode_mask(segmentation, (20, 20), 'a.json, annotation 3')


def test_masks_of_polygons_and_run_lengths() -> None:
    square = np.zeros((20, 20), np.uint8)
    square[2:8, 4:9] = 1
    name = 'a.json, annotation 3'
    assert (decode_mask([[4, 2, 9, 2, 9, 8, 4, 8]], (20, 20), name) == square).all()
    runs = dict(size=[20, 20], counts=run_lengths(square > 0))
    assert (decode_mask(runs, (20, 20), name) == square).all()
    assert (decode_mask([], (20, 20), name) == 0).all()
    assert (decode_mask([[1, 2, 3, 4]], (20, 20), name) == 0).all()  # no area
    assert decode_mask([[-9, -9, 99, -9, 99, 99, -9, 99]], (20, 20), name).all()


@needs_coco
def test_real_persons_are_read_with_a_class_list_of_one() -> None:
    for split, images, persons in (('train2017', 30, 87), ('val2017', 30, 65)):
        config = instance_config(COCO / 'person', split)
        config['ann_file'] = f'annotations/person_keypoints_{split}.json'
        data = DATASETS.build(config)
        assert len(data) == images and data.metainfo['classes'] == ('person',)
        sizes = [len(item['data_samples'].gt_instances) for item in data]
        assert sum(sizes) == persons and min(sizes) == 0  # images without objects are kept


@needs_coco
def test_the_real_instances_are_read() -> None:
    crowds = number = 0
    for split, images in (('train2017', 32), ('val2017', 6)):
        config = instance_config(COCO / 'tiny', split)
        data = DATASETS.build(config)
        assert len(data) == images and len(data.metainfo['classes']) == 80
        coco = COCOApi(str(COCO / f'tiny/{config["ann_file"]}'))
        content = coco.dataset
        names = {c['id']: c['name'] for c in content['categories']}
        for item, image in zip(data, content['images'], strict=True):
            instances = item['data_samples'].gt_instances
            listed = [a for a in content['annotations'] if a['image_id'] == image['id']]
            classes = [data.metainfo['classes'][i] for i in instances.labels]
            assert classes == [names[a['category_id']] for a in listed]
            masks = [coco.annToMask(annotation) for annotation in listed]
            for mine, theirs in zip(instances.masks.numpy(), masks, strict=True):
                assert (mine == theirs).all()
            boxes = np.array([a['bbox'] for a in listed]).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            difference = np.abs(instances.bboxes.numpy() - boxes)
            # Polygons of a few objects reach into half a pixel more, which no mask holds.
            assert difference.size == 0 or (np.median(difference) < 0.6 and difference.max() < 12)
            crowds += int(instances.iscrowd.sum())
            number += len(listed)
    assert (number, crowds) == (424, 5)


@needs_coco
def test_the_check_of_a_data_set_reads_masks() -> None:
    report = check_split(instance_config(COCO / 'tiny', 'val2017'))
    assert report.problems == [] and report.labels_read == 6
    assert report.pixels[0] > 0  # persons
