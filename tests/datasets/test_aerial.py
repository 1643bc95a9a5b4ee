"""DeepGlobe and Inria as downloaded: colours become classes, what is wrong is named."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS, TRANSFORMS

from mmseg_ext.datasets import DeepGlobeDataset, InriaDataset
from mmseg_ext.datasets.checks import check_split

BASE = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets'
LOAD = [dict(type='LoadImage'), dict(type='LoadColorSegMap', threshold=128)]
PALETTE = np.array(DeepGlobeDataset.METAINFO['palette'], np.uint8)


def write(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgb[..., ::-1] if rgb.ndim == 3 else rgb)


@pytest.fixture
def deepglobe(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        write(tmp_path / f'train/{number}_sat.jpg', rng.integers(0, 256, (40, 50, 3), np.uint8))
        label = rng.integers(0, 7, (40, 50))
        noise = rng.integers(0, 60, (40, 50, 3))
        colors = np.where(PALETTE[label] > 0, 255 - noise, noise)
        write(tmp_path / f'train/{number}_mask.png', colors.astype(np.uint8))
        np.save(tmp_path / f'{number}.npy', label)
    for split, numbers in dict(train='1\n2\n', val='3\n', test='4\n').items():
        (tmp_path / f'{split}.txt').write_text(numbers)
    return tmp_path


@pytest.fixture
def inria(tmp_path: Path) -> Path:
    for name in ('austin1', 'austin5', 'austin6', 'vienna36'):
        mask = np.zeros((30, 30), np.uint8)
        mask[:10] = 255
        write(tmp_path / f'train/images/{name}.tif', np.full((30, 30, 3), 9, np.uint8))
        write(tmp_path / f'train/gt/{name}.tif', mask)
    return tmp_path


def of_base(name: str, split: str, root: Path, **changes: Any) -> Any:
    cfg = Config.fromfile(BASE / f'{name}.py')[f'{split}_dataloader'].dataset
    return DATASETS.build(cfg | dict(data_root=str(root), pipeline=LOAD) | changes)


def test_deepglobe_is_divided_by_lists_and_read_by_colour(deepglobe: Path) -> None:
    for split, numbers in dict(train=(1, 2), val=(3,), test=(4,)).items():
        data = of_base('deepglobe', split, deepglobe)
        assert len(data) == len(numbers)
        for item, number in zip(data, numbers, strict=True):
            np.testing.assert_array_equal(item['gt_seg_map'], np.load(deepglobe / f'{number}.npy'))
            assert item['gt_seg_map'].dtype == np.uint8


def test_inria_is_divided_by_the_numbers_of_its_tiles(inria: Path) -> None:
    names = {
        split: [Path(item['img_path']).stem for item in of_base('inria', split, inria)]
        for split in ('train', 'val')
    }
    assert names == dict(train=['austin6', 'vienna36'], val=['austin1', 'austin5'])
    label = of_base('inria', 'val', inria)[0]['gt_seg_map']
    assert (label[:10] == 1).all() and (label[10:] == 0).all()
    with pytest.raises(ValueError, match=r'none of the 4 images .* numbers \[77\]'):
        of_base('inria', 'val', inria, tiles=[77])


def test_the_check_reads_colours_as_training_does(deepglobe: Path, inria: Path) -> None:
    cfg = Config.fromfile(BASE / 'deepglobe.py').train_dataloader.dataset
    report = check_split(cfg | dict(data_root=str(deepglobe)))
    assert not report.problems and report.images == report.labels_read == 2
    counts = sum(np.bincount(np.load(deepglobe / f'{n}.npy').ravel(), minlength=7) for n in (1, 2))
    np.testing.assert_array_equal(report.pixels, counts)
    cfg = Config.fromfile(BASE / 'inria.py').val_dataloader.dataset
    report = check_split(cfg | dict(data_root=str(inria)))
    assert not report.problems and report.pixels.tolist() == [2 * 600, 2 * 300]


def test_a_colour_of_no_class_is_named_with_its_place(deepglobe: Path) -> None:
    path = deepglobe / 'train' / '3_mask.png'
    colors = cv2.imread(str(path))[..., ::-1].copy()
    colors[7, 9] = (250, 10, 3)
    write(path, colors)
    sentence = (
        r'3_mask.png has the colour \(255, 0, 0\) \(red, green, blue\) at column 9, row 7, .*'
        r'0\.05 % of its pixels: .*unknown \[0, 0, 0\], urban \[0, 255, 255\]'
    )
    with pytest.raises(ValueError, match=sentence):
        of_base('deepglobe', 'val', deepglobe)[0]
    cfg = Config.fromfile(BASE / 'deepglobe.py').val_dataloader.dataset
    (problem,) = check_split(cfg | dict(data_root=str(deepglobe))).problems
    assert '3_mask.png has the colour (255, 0, 0)' in problem


def test_colours_count_as_they_are_without_a_threshold(tmp_path: Path) -> None:
    write(tmp_path / 'a.png', np.array([[[0, 255, 255], [0, 254, 255]]], np.uint8))
    palette = dict(zip(DeepGlobeDataset.METAINFO['classes'], PALETTE.tolist(), strict=True))
    item = dict(seg_map_path=str(tmp_path / 'a.png'), palette=palette, seg_fields=[])
    with pytest.raises(ValueError, match=r'\(0, 254, 255\) .* column 1, row 0'):
        TRANSFORMS.build(dict(type='LoadColorSegMap'))(item)


def test_a_mask_of_another_size_or_no_mask_is_named(deepglobe: Path) -> None:
    path = deepglobe / 'train' / '3_mask.png'
    write(path, np.zeros((40, 51, 3), np.uint8))
    with pytest.raises(ValueError, match='3_mask.png is 51x40 and its image .* is 50x40'):
        of_base('deepglobe', 'val', deepglobe)[0]
    path.write_bytes(b'no picture')
    with pytest.raises(ValueError, match='3_mask.png cannot be decoded as a mask'):
        of_base('deepglobe', 'val', deepglobe)[0]


@pytest.mark.parametrize('name', ['deepglobe', 'inria'])
def test_a_wrong_folder_is_explained(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='train.* does not exist: un(zip|pack) .*--data-root'):
        of_base(name, 'train', tmp_path)
    for folder in ('train/images', 'train/gt'):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match='holds no image that ends in .*--data-root'):
        of_base(name, 'train', tmp_path)


def test_a_missing_list_is_explained(deepglobe: Path) -> None:
    (deepglobe / 'val.txt').unlink()
    with pytest.raises(ValueError, match=r"val.txt does not exist: .* all 4 with ann_file=''"):
        of_base('deepglobe', 'val', deepglobe)
    assert len(of_base('deepglobe', 'val', deepglobe, ann_file='')) == 4


def test_a_user_may_keep_some_classes(inria: Path) -> None:
    data = of_base('inria', 'val', inria, metainfo=dict(classes=('building',)))
    label = data[0]['gt_seg_map']
    assert (label[:10] == 0).all() and (label[10:] == 255).all()
    assert InriaDataset.METAINFO['classes'] == ('not building', 'building')
