from pathlib import Path
from textwrap import dedent

import cv2
import numpy as np
import pytest
from mmengine import Config
from mmseg.registry import DATASETS

from mmseg_ext.config.prepare import prepare_training
from mmseg_ext.engine.launch import dry_run
from mmseg_ext.visualization.palette import distinct_colors
from tests.tiny_run import forget_visualizers

CONFIG = Path(__file__).parents[2] / 'configs/_base_/datasets/folder.py'


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


@pytest.fixture
def root(tmp_path):
    """Images with several endings, masks of 0, 1, 7 and 255."""
    mask = np.array([[0, 1], [7, 255]], np.uint8).repeat(20, 0).repeat(20, 1)
    for split in ('train', 'val'):
        for name in ('a.jpg', 'deep/b.JPG', 'c.png'):
            write(tmp_path / 'images' / split / name, np.full((40, 40, 3), 90, np.uint8))
            write((tmp_path / 'masks' / split / name).with_suffix('.png'), mask)
    (tmp_path / 'images/train/notes.txt').write_text('no image')
    return tmp_path


def build(root, **kwargs):
    base = dict(
        type='FolderDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
        metainfo=dict(classes=('other', 'road')),
        pipeline=[dict(type='LoadImage'), dict(type='LoadSegMap')],
    )
    return DATASETS.build({**base, **kwargs})


def test_the_five_lines_of_the_docstring_train_on_a_folder(root, tmp_path, capsys):
    lines = CONFIG.read_text().split('"""')[1].splitlines()
    first = next(i for i, line in enumerate(lines) if '_base_ = ' in line)
    child = tmp_path / 'configs/mine/mine.py'
    child.parent.mkdir(parents=True)
    (tmp_path / 'configs/_base_').symlink_to(CONFIG.parents[1])
    child.write_text(dedent('\n'.join(lines[first : lines.index('', first)])))
    for mask in (root / 'masks').rglob('*.png'):
        write(mask, np.where(cv2.imread(str(mask), -1) == 7, 0, cv2.imread(str(mask), -1)))
    options = {'train_dataloader.batch_size': 2, 'train_dataloader.num_workers': 0}
    options['train_dataloader.persistent_workers'] = False
    cfg = prepare_training(
        str(child),
        data_root=str(root),
        crop_size=(32, 32),
        max_iters=2,
        init='none',
        work_dir=str(tmp_path / 'out'),
        cfg_options=options,
    )
    forget_visualizers()
    dry_run(cfg)
    assert 'dry run: one training batch' in capsys.readouterr().out
    label = DATASETS.build(cfg.train_dataloader.dataset)[0]['data_samples'].gt_sem_seg.data
    assert label.unique().tolist() == [0, 1]  # 255 stands for the second class


def test_images_of_any_ending_are_paired_below_the_folder(root):
    dataset = build(root)
    assert [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))] == [
        str(root / 'images/train' / name) for name in ('a.jpg', 'c.png', 'deep/b.JPG')
    ]
    assert dataset.get_data_info(2)['seg_map_path'] == str(root / 'masks/train/deep/b.png')


def test_classes_without_a_palette_get_colours_that_differ(root):
    palette = build(root).metainfo['palette']
    assert palette == distinct_colors(len(palette))
    chosen = dict(classes=('a', 'b'), palette=[[1, 2, 3], [4, 5, 6]])
    assert build(root, metainfo=chosen).metainfo['palette'] == chosen['palette']


def test_values_of_the_files_become_classes(root):
    label = build(root, label_map={7: 255, 255: 1})[0]['gt_seg_map']
    assert label[::20, ::20].tolist() == [[0, 1], [255, 1]]


def test_a_value_that_is_no_class_is_named_with_its_file(root):
    with pytest.raises(ValueError, match=r'masks/train/a\.png holds the value 7'):
        build(root)[0]


def test_a_config_with_a_label_map_survives_writing_and_reading(root, tmp_path):
    cfg = Config(dict(dataset=dict(type='FolderDataset', label_map={7: 255, 255: 1})))
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').dataset.label_map == {7: 255, 255: 1}


def test_a_list_of_names_chooses_images(root):
    (root / 'some.txt').write_text('deep/b\na\n')
    dataset = build(root, ann_file='some.txt')
    assert [dataset.get_data_info(i)['img_path'][-5:] for i in range(2)] == ['a.jpg', 'b.JPG']
    (root / 'some.txt').write_text('a\nz\n')
    with pytest.raises(ValueError, match='some.txt lists z'):
        build(root, ann_file='some.txt')


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(data_root='/nowhere'), ValueError, '/nowhere/images/train does not exist'),
        (
            dict(data_prefix=dict(img_path='images/train', seg_map_path='labels')),
            ValueError,
            'labels does not exist: name the folders of .* in data_prefix',
        ),
        (dict(img_suffix='.webp'), ValueError, 'no image that ends in .webp'),
        (dict(metainfo=None), ValueError, 'got no classes'),
        (
            dict(data_prefix=dict(img_path='masks/train', seg_map_path='masks/train')),
            ValueError,
            'would be its own mask',
        ),
    ],
)
def test_what_is_missing_is_named(root, change, error, message):
    with pytest.raises(error, match=message):
        build(root, **change)


def test_images_without_masks_can_be_read(root):
    dataset = build(root, data_prefix=dict(img_path='images/val'), pipeline=[])
    assert len(dataset) == 3
    assert 'seg_map_path' not in dataset[0]
