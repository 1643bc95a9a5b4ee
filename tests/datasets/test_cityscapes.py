from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine import Config
from mmseg.datasets import CityscapesDataset, MapillaryDataset_v1
from mmseg.registry import DATASETS

from mmseg_ext.datasets import Mapillary65Dataset

BASES = Path(__file__).parents[2] / 'configs/_base_/datasets'
LAYOUT = [
    ('leftImg8bit/train', 'gtFine/train', '_gtFine'),
    ('leftImg8bit/val', 'gtFine/val', '_gtFine'),
    ('leftImg8bit/train_extra', 'gtCoarse/train_extra', '_gtCoarse'),
]
# (name, id, trainId) of every class as the data set's own scripts list them.
OFFICIAL = [
    ('unlabeled', 0, 255),
    ('ego vehicle', 1, 255),
    ('rectification border', 2, 255),
    ('out of roi', 3, 255),
    ('static', 4, 255),
    ('dynamic', 5, 255),
    ('ground', 6, 255),
    ('road', 7, 0),
    ('sidewalk', 8, 1),
    ('parking', 9, 255),
    ('rail track', 10, 255),
    ('building', 11, 2),
    ('wall', 12, 3),
    ('fence', 13, 4),
    ('guard rail', 14, 255),
    ('bridge', 15, 255),
    ('tunnel', 16, 255),
    ('pole', 17, 5),
    ('polegroup', 18, 255),
    ('traffic light', 19, 6),
    ('traffic sign', 20, 7),
    ('vegetation', 21, 8),
    ('terrain', 22, 9),
    ('sky', 23, 10),
    ('person', 24, 11),
    ('rider', 25, 12),
    ('car', 26, 13),
    ('truck', 27, 14),
    ('bus', 28, 15),
    ('caravan', 29, 255),
    ('trailer', 30, 255),
    ('train', 31, 16),
    ('motorcycle', 32, 17),
    ('bicycle', 33, 18),
]
LOAD = [dict(type='LoadImage'), dict(type='LoadSegMap')]


@pytest.fixture
def root(tmp_path):
    """The layout of the download: labelIds alone, all 34 of them in each label."""
    ids = np.arange(34, dtype=np.uint8).repeat(4)[None].repeat(64, 0)
    for images, labels, kind in LAYOUT:
        for city in ('aachen', 'bochum'):
            (tmp_path / images / city).mkdir(parents=True)
            (tmp_path / labels / city).mkdir(parents=True)
            name = f'{city}_000000_000019'
            image = np.zeros((*ids.shape, 3), np.uint8)
            cv2.imwrite(str(tmp_path / images / city / f'{name}_leftImg8bit.png'), image)
            cv2.imwrite(str(tmp_path / labels / city / f'{name}{kind}_labelIds.png'), ids)
            (tmp_path / labels / city / f'{name}{kind}_polygons.json').write_text('{}')
    return tmp_path


def build(root, split=0, **kwargs):
    images, labels, kind = LAYOUT[split]
    return DATASETS.build(
        dict(
            type='CityscapesIdsDataset',
            data_root=str(root),
            data_prefix=dict(img_path=images, seg_map_path=labels),
            seg_map_suffix=f'{kind}_labelTrainIds.png',
            pipeline=LOAD,
            **kwargs,
        )
    )


@pytest.mark.parametrize('split', [0, 1, 2])
def test_label_ids_become_the_classes_of_the_same_name(root, split):
    dataset = build(root, split)
    assert len(dataset) == 2
    label = dataset[0]['gt_seg_map'][0, ::4]
    assert label.tolist() == [train_id for _, _, train_id in OFFICIAL]
    classes = dataset.metainfo['classes']
    assert classes == CityscapesDataset.METAINFO['classes']
    assert all(classes[t] == name for name, _, t in OFFICIAL if t != 255)


def test_label_train_ids_are_read_where_they_exist(root):
    folder = root / 'gtFine/train/bochum'
    train_ids = np.full((64, 136), 18, np.uint8)
    cv2.imwrite(str(folder / 'bochum_000000_000019_gtFine_labelTrainIds.png'), train_ids)
    aachen, bochum = build(root)
    assert aachen['gt_seg_map'][0, -1] == 18 and aachen['gt_seg_map'][0, 0] == 255
    assert (bochum['gt_seg_map'] == 18).all()


def test_a_user_may_keep_some_classes(root):
    dataset = build(root, metainfo=dict(classes=('car', 'road')))
    kept = {26: 0, 7: 1}
    assert dataset[0]['gt_seg_map'][0, ::4].tolist() == [kept.get(i, 255) for i in range(34)]


def test_a_missing_label_keeps_its_place(root):
    """Checks before training name the pair; the data set does not drop it silently."""
    (root / 'gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png').unlink()
    dataset = build(root)
    assert len(dataset) == 2
    with pytest.raises(FileNotFoundError, match='aachen_000000_000019_gtFine_labelIds.png'):
        dataset[0]


def test_a_missing_folder_gives_the_command_that_makes_it(tmp_path):
    root = tmp_path / 'streets'
    with pytest.raises(ValueError, match=f'train does not exist: run python .* {root}$'):
        build(root)
    with pytest.raises(ValueError, match=r'unzip .*data-root\), or .*/make_streets\.py DIR'):
        build(tmp_path / 'cityscapes')


@pytest.mark.parametrize('name', ['cityscapes', 'streets', 'cityscapes_class_uniform_1024x2048'])
def test_every_base_reads_the_layout(root, tmp_path, name):
    cfg = Config.fromfile(BASES / f'{name}.py')
    train = cfg.train_dataloader.dataset
    inner = train.get('dataset', train)
    inner.data_root = cfg.val_dataloader.dataset.data_root = str(root)
    crop = next(t for t in inner.pipeline if 'crop_size' in t)
    assert tuple(crop.crop_size) == tuple(cfg.crop_size)
    crop.crop_size = (32, 48)
    if 'class_uniform' in name:
        train.cache_dir = str(tmp_path / 'cache')
    dataset = DATASETS.build(train)
    for item in (dataset[0], dataset[len(dataset) - 1]):
        assert item['inputs'].shape == (3, 32, 48)
    assert len(DATASETS.build(cfg.val_dataloader.dataset)) == 2


def test_mapillary_ignores_what_is_not_evaluated(tmp_path):
    assert MapillaryDataset_v1.METAINFO['classes'][65:] == ('Unlabeled',)
    cfg = Config.fromfile(BASES / 'mapillary_class_uniform_1024x1024.py')
    for split in ('training', 'validation'):
        images, labels = tmp_path / split / 'images', tmp_path / split / 'v1.2/labels'
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        values = np.arange(66, dtype=np.uint8).repeat(6)[None].repeat(300, 0)
        cv2.imwrite(str(images / 'a.jpg'), np.zeros((*values.shape, 3), np.uint8))
        cv2.imwrite(str(labels / 'a.png'), values)
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    train.cache_dir = str(tmp_path / 'cache')
    train.dataset.data_root = val.data_root = str(tmp_path)
    item = DATASETS.build(val)[0]
    assert item['inputs'].shape[2] == 2177  # the long edge
    label = item['data_samples'].gt_sem_seg.data[0, 0]
    assert label.shape == (396,)
    assert label[::6].tolist() == [*range(65), 255]

    dataset = DATASETS.build(train)
    assert set(dataset.centroids[:, 1]) == set(range(65))
    assert dataset[1]['inputs'].shape == (3, 1024, 1024)
    np.random.seed(0)
    for row in range(0, 65, 8):  # the point follows the resize to the long edge
        label = dataset[1 + row]['data_samples'].gt_sem_seg.data
        assert (label == dataset.centroids[row, 1]).any()
    assert len(Mapillary65Dataset.METAINFO['palette']) == 65
