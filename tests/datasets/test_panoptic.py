"""Data sets with segments: their files, the transforms that carry them, and wrong files."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine import Config
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from pycocotools.coco import COCO as COCOApi

from mmseg_ext.datasets.panoptic.ade20k import STUFF, THINGS
from mmseg_ext.datasets.panoptic.labels import PanopticLabel, segment, slots_of, table_of_slots
from mmseg_ext.datasets.panoptic.transforms import LoadPanoptic, PackPanopticInputs
from mmseg_ext.datasets.streets import make_streets
from mmseg_ext.errors import UserError
from tests.datasets.panoptic_files import (
    CATEGORIES,
    COCO,
    SEGMENTS,
    ids_of_a_picture,
    needs_coco,
    panoptic_config,
    write,
    write_ids,
    write_panoptic,
)
from tests.tiny import CONFIG_DIR

SMALL = (96, 192)


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


@pytest.fixture(scope='module')
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'streets'
    make_streets(root, num_train=3, num_val=1, num_extra=0, size=SMALL, progress=False)
    return root


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


def test_a_json_without_annotations_has_images_without_labels(tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    content = json.loads((tmp_path / 'panoptic.json').read_text())
    del content['annotations']
    (tmp_path / 'panoptic.json').write_text(json.dumps(content))
    config = panoptic_config(tmp_path)
    del config['pipeline'][1]
    config['data_prefix'] = dict(img_path='images')
    sample = DATASETS.build(config)[1]['data_samples']
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


# ---- transforms ----

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


def test_ade20k_joins_both_downloads(tmp_path: Path) -> None:
    data = DATASETS.build(ade_config(write_ade(tmp_path)))
    assert len(STUFF) == 50 and len(THINGS) == 100
    names = [data.metainfo['classes'][i].strip() for i in THINGS]
    assert names[:3] + names[-2:] == ['bed', 'windowpane', 'cabinet', 'clock', 'flag']
    sample = data[0]['data_samples']
    assert ids_of(sample).tolist() == [[1, 1, 257, 257], [1, 258, 258, 0], [0, 1, 1, 0]]
    assert sample.gt_sem_seg.data[0].tolist() == [[0, 0, 7, 7], [0, 7, 7, 12], [255, 0, 0, 12]]
    assert [(s['category_id'], s['isthing']) for s in sample.segments_info] == [
        (0, False), (7, True), (7, True),
    ]  # fmt: skip
    chosen = DATASETS.build(ade_config(tmp_path, metainfo=dict(classes=('person', 'bed '))))
    assert chosen.metainfo['thing_classes'] == (0, 1)
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
        item = DATASETS.build(config)[0]
        sample = item['data_samples']
        meta = DATASETS.build(config).metainfo
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
        cfg[f'{split}_dataloader'].dataset = config


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


def test_semantic_labels_alone_get_a_sentence(streets: Path) -> None:
    config = dict(cityscapes_config(streets), type='CityscapesIdsDataset')
    data = DATASETS.build(config)
    assert data.metainfo['thing_classes'] == ()
    with pytest.raises(UserError, match='semantic labels only, and LoadPanoptic needs segments'):
        data[0]


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
    from mmseg_ext.datasets.panoptic.labels import decode_mask

    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    monkeypatch.setitem(sys.modules, 'pycocotools.mask', None)
    with pytest.raises(UserError, match='needs pycocotools: pip install pycocotools'):
        decode_mask([[0, 0, 9, 0, 9, 9]], (20, 20))


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
