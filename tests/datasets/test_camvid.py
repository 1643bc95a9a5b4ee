from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine import Config
from mmseg.registry import DATASETS

from mmseg_ext.datasets import CamVidDataset

BASES = [
    Path(__file__).parents[2] / f'configs/_base_/datasets/{n}.py' for n in ('camvid', 'camvid_half')
]


@pytest.fixture(params=['.png', '.jpg'])
def root(request, tmp_path):
    rng = np.random.default_rng(0)
    for split in ('train', 'val', 'test'):
        for folder in (split, f'{split}annot'):
            (tmp_path / folder).mkdir()
        for name in 'ab':
            image = rng.integers(0, 256, (360, 480, 3), np.uint8)
            cv2.imwrite(str(tmp_path / split / (name + request.param)), image)
            label = rng.integers(0, 12, (360, 480), np.uint8)
            cv2.imwrite(str(tmp_path / f'{split}annot' / f'{name}.png'), label)
    return tmp_path


@pytest.mark.parametrize('base', BASES)
def test_every_split_is_read_whatever_the_images_end_in(root, base):
    cfg = Config.fromfile(base)
    crop = tuple(cfg.crop_size)
    sizes = dict(train=crop, val=crop, test=crop)  # test images are as large as the crop here
    for split, size in sizes.items():
        dataset_cfg = cfg[f'{split}_dataloader'].dataset
        dataset_cfg.data_root = str(root)
        dataset = DATASETS.build(dataset_cfg)
        assert len(dataset) == 2
        item = dataset[0]
        assert split in dataset.get_data_info(0)['img_path']
        assert item['inputs'].shape[1:] == size
        label = item['data_samples'].gt_sem_seg.data[0]
        assert label.shape == (size if split == 'train' else (360, 480))
        assert set(label.unique().tolist()) <= {*range(11), 255}


def test_a_missing_folder_gives_the_layout(tmp_path):
    prefix = dict(img_path='train', seg_map_path='trainannot')
    layout = (
        r'train does not exist: .* testannot \(see mmseg_ext\.datasets\.camvid\); .*--data-root'
    )
    with pytest.raises(ValueError, match=layout):
        CamVidDataset(data_root=str(tmp_path), data_prefix=prefix)
    assert 'trainannot' in CamVidDataset.__doc__


def test_the_unlabelled_value_is_ignored_and_no_other(root):
    prefix = dict(img_path='train', seg_map_path='trainannot')
    pipeline = [dict(type='LoadImage'), dict(type='LoadSegMap')]
    dataset = CamVidDataset(data_root=str(root), data_prefix=prefix, pipeline=pipeline)
    raw = cv2.imread(str(root / 'trainannot/a.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(dataset[0]['gt_seg_map'], np.where(raw == 11, 255, raw))


def test_a_user_may_keep_some_classes(root):
    dataset = CamVidDataset(
        data_root=str(root),
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        metainfo=dict(classes=('road', 'car')),
        pipeline=[dict(type='LoadImage'), dict(type='LoadSegMap')],
    )
    raw = cv2.imread(str(root / 'trainannot/a.png'), cv2.IMREAD_UNCHANGED)
    label = dataset[0]['gt_seg_map']
    assert (label[raw == 3] == 0).all()
    assert (label[raw == 8] == 1).all()
    assert (label[(raw != 3) & (raw != 8)] == 255).all()
    assert dataset.metainfo['palette'] == [[128, 64, 128], [64, 0, 128]]


def test_flipped_test_images_are_packed(root):
    cfg = Config.fromfile(BASES[0])
    dataset = cfg.test_dataloader.dataset
    dataset.update(data_root=str(root), pipeline=cfg.tta_pipeline)
    item = DATASETS.build(dataset)[0]
    plain, flipped = item['inputs']
    assert plain.equal(flipped.flip(-1))
    assert [sample.flip for sample in item['data_samples']] == [False, True]
