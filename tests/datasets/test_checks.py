import os

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_ext.datasets.checks import check_split, check_splits
from mmseg_ext.datasets.transforms import LoadSegMap
from tests.tiny_run import CLASSES, write_folder, write_pair


def dataset(root, split='train', **changes):
    return dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}'),
        img_suffix='.png',
        metainfo=dict(classes=CLASSES),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
        **changes,
    )


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / 'data')


def write_label(root, array, name='train/1'):
    path = root / 'labels' / f'{name}.png'
    assert cv2.imwrite(str(path), np.asarray(array))
    return path


def only_problem(root, **changes):
    report = check_split(dataset(root, **changes))
    assert len(report.problems) == 1
    return report.problems[0]


def test_a_good_folder_is_counted(root):
    report = check_split(dataset(root))
    assert report.problems == report.warnings == []
    assert report.images == report.labels_read == 4
    assert report.sizes == {(48, 40): 4}
    assert report.pixels.tolist() == [4 * 959, 4 * 928, 4 * 32]
    assert report.images_with.tolist() == [4, 4, 4]
    assert report.ignored == 4


def test_the_best_constant_prediction_counts_only_classes_that_occur(root):
    for i in range(4):
        write_label(root, np.repeat([[0], [1], [1], [1]], 10, 0).repeat(48, 1), f'train/{i}')
    name, miou = check_split(dataset(root)).constant_prediction()
    assert name == 'floor'
    assert miou == pytest.approx(100 * 0.75 / 2)


def test_class_weights_are_the_median_frequency_over_the_frequency(tmp_path):
    root = write_folder(tmp_path / 'data', train=2)
    write_label(root, np.zeros((40, 48), np.uint8), 'train/0')
    write_label(root, np.repeat([0, 1], 20)[:, None].repeat(48, 1), 'train/1')
    # wall: 3/4 of the two images with it; floor: 1/2 of the one with it; cat never
    assert check_split(dataset(root)).class_weights() == [round(0.625 / 0.75, 4), 1.25, 1.0]


def test_a_missing_data_root_names_it_and_the_option(tmp_path):
    with pytest.raises(ValueError, match=r'nowhere.*does not exist.*--data-root'):
        check_split(dataset(tmp_path / 'nowhere'))


def test_a_missing_label_folder_is_named(root):
    cfg = dataset(root, split='test')
    with pytest.raises(ValueError, match=r'images/test.*BaseSegDataset.*does not exist'):
        check_split(cfg)


def test_an_empty_folder_says_what_it_holds_instead(root):
    cfg = dataset(root) | dict(img_suffix='.jpg')
    with pytest.raises(ValueError, match=r'no image ending in \.jpg under .*holds 4 \.png'):
        check_split(cfg)


def test_an_image_without_label_is_named(root):
    (root / 'labels/train/1.png').unlink()
    problem = only_problem(root)
    assert 'images/train/1.png' in problem
    assert 'labels/train/1.png does not exist' in problem


def test_a_label_without_image_is_a_warning(root):
    (root / 'images/train/1.png').unlink()
    report = check_split(dataset(root))
    assert report.problems == []
    assert [w.split(':')[0].endswith('labels/train/1.png') for w in report.warnings] == [True]


def test_labels_left_out_by_a_list_are_no_warning(root):
    (root / 'list.txt').write_text('0\n2\n')
    report = check_split(dataset(root, ann_file='list.txt'))
    assert (report.images, report.warnings) == (2, [])
    assert check_split(dataset(root, indices=2)).warnings == []


def test_sizes_that_differ_are_named_without_reading_the_label(root):
    path = write_label(root, np.zeros((40, 50), np.uint8))
    report = check_split(dataset(root), max_labels=0)
    sentence = f'{path}: the label has 50x40 pixels, its image 48x40: both must have the same size'
    assert report.problems == [sentence]


def test_a_label_value_outside_the_classes_is_named_with_its_file(root):
    path = write_label(root, np.full((40, 48), 200, np.uint8))
    problem = only_problem(root)
    assert str(path) in problem
    assert '200' in problem
    assert '0 to 2' in problem


def test_three_channels_are_refused_without_reading_the_label(root):
    path = write_label(root, np.zeros((40, 48, 3), np.uint8))
    report = check_split(dataset(root), max_labels=0)
    assert len(report.problems) == 1
    assert f'{path}: the label has 3 channels' in report.problems[0]


def test_a_palette_is_no_channel(root):
    label = Image.fromarray(np.ones((40, 48), np.uint8), mode='P')
    label.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    label.save(root / 'labels/train/1.png')
    assert check_split(dataset(root)).problems == []


def test_16_bit_labels_are_read_even_if_not_in_the_sample(root):
    path = write_label(root, np.full((40, 48), 300, np.uint16))
    report = check_split(dataset(root), max_labels=0)
    assert len(report.problems) == 1
    assert str(path) in report.problems[0]
    assert '300' in report.problems[0]
    write_label(root, np.full((40, 48), 2, np.uint16))
    assert check_split(dataset(root), max_labels=0).problems == []


def test_masks_of_0_and_255_get_the_advice_of_a_label_map(root):
    for i in range(4):
        write_label(root, np.repeat([0, 255], 20)[:, None].repeat(48, 1), f'train/{i}')
    cfg = dataset(root) | dict(metainfo=dict(classes=('other', 'road')))
    assert 'label_map={255: 1}' in check_split(cfg).problems[0]
    cfg |= dict(type='FolderDataset', label_map={255: 1})
    assert check_split(cfg).problems == []


def test_labels_are_counted_after_reduce_zero_label(root):
    report = check_split(dataset(root, reduce_zero_label=True))
    assert report.pixels.tolist() == [4 * 928, 4 * 32, 0]
    assert report.warnings == ['not in any of 4 labels: cat']


def test_class_counts_of_all_heads_are_compared(root):
    model = dict(
        decode_head=dict(type='A', head=dict(num_classes=3)),
        auxiliary_head=[dict(num_classes=3), dict(num_classes=19)],
        backbone=dict(num_classes=1000),
    )
    cfg = dict(model=model, train_dataloader=dict(dataset=dataset(root)))
    ((_, report),) = check_splits(cfg)
    assert len(report.problems) == 1
    assert report.problems[0].startswith(
        'model.auxiliary_head.1.num_classes=19, but the data set has 3 classes'
    )


def test_a_split_that_repeats_another_is_left_out(root):
    loader = dict(dataset=dataset(root, 'val'))
    cfg = dict(model={}, train_dataloader=None, val_dataloader=loader, test_dataloader=dict(loader))
    assert [split for split, _ in check_splits(cfg)] == ['val']


def test_wrapped_data_sets_are_all_read(root):
    write_label(root, np.full((40, 48), 7, np.uint8), 'val/0')
    both = dict(type='ConcatDataset', datasets=[dataset(root), dataset(root, 'val')])
    report = check_split(dict(type='RepeatDataset', times=3, dataset=both))
    assert report.images == 6
    assert 'labels/val/0.png' in report.problems[0]


def test_data_sets_of_one_split_need_the_same_classes(root):
    other = dataset(root) | dict(metainfo=dict(classes=('a', 'b')))
    with pytest.raises(ValueError, match='must have the same classes'):
        check_split(dict(type='ConcatDataset', datasets=[dataset(root), other]))


def test_a_data_set_without_class_names_is_refused(root):
    with pytest.raises(ValueError, match='no class names: add metainfo'):
        check_split(dataset(root) | dict(metainfo={}))


def test_damaged_files_are_named(root):
    image, label = root / 'images/train/0.png', root / 'labels/train/1.png'
    image.write_bytes(image.read_bytes()[:1500])
    label.write_bytes(label.read_bytes()[:60])
    problems = check_split(dataset(root), decode_images=True).problems
    assert len(problems) == 2
    assert str(image) in problems[0]
    assert str(label) in problems[1]


@pytest.mark.timeout(60)
def test_a_pipe_is_named_and_not_waited_for(root):
    path = root / 'labels/train/1.png'
    path.unlink()
    os.mkfifo(path)
    assert only_problem(root).startswith(f'{path} is no file, but a pipe')


def test_a_photo_that_is_turned_while_loading_fits_its_label(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in '0123':
        path = root / f'images/train/{name}.png'
        Image.open(path).rotate(90, expand=True).save(path.with_suffix('.jpg'), exif=exif)
    report = check_split(dataset(root) | dict(img_suffix='.jpg'))
    assert report.problems == []
    assert report.sizes == {(48, 40): 4}


def test_several_processes_find_what_one_finds(tmp_path):
    for i in range(70):
        write_pair(tmp_path, f'train/{i:02}', size=(24, 20 + i % 2), seed=i)
    write_label(tmp_path, np.full((24, 21), 9, np.uint8), 'train/65')
    report = check_split(dataset(tmp_path), max_labels=35)
    assert (report.images, report.labels_read) == (70, 35)
    report = check_split(dataset(tmp_path))
    assert (report.images, report.labels_read) == (70, 69)
    assert report.sizes == {(20, 24): 35, (21, 24): 35}
    assert 'labels/train/65.png' in report.problems[0]


def test_an_image_that_pil_refuses_to_read_is_named(root, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 40 * 48 // 2 - 1)
    problems = check_split(dataset(root)).problems
    assert problems and all('more pixels than PIL reads' in problem for problem in problems)
    with pytest.raises(ValueError, match=r'1\.png: the file has more pixels than PIL reads'):
        LoadSegMap()._read(str(root / 'labels/train/1.png'))


def test_all_class_names_are_listed_without_dots(root):
    model = dict(decode_head=dict(num_classes=5))
    cfg = dict(model=model, train_dataloader=dict(dataset=dataset(root)))
    ((_, report),) = check_splits(cfg)
    assert '3 classes (wall, floor, cat): set it to 3' in report.problems[-1]


def test_a_link_that_the_host_omits_or_cannot_follow_is_named(root):
    path = root / 'images/train/1.png'
    for target, sentence in (('nowhere', 'a broken link'), ('1.png', 'cannot be read')):
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(ValueError, match=rf'images/train/1\.png .*{sentence}'):
            check_split(dataset(root))


@pytest.mark.parametrize(
    ('content', 'sentence'), [(b'\xff\xfe', 'list.txt is no text'), (b'\n', 'lists no image')]
)
def test_a_list_without_names_is_named(root, content, sentence):
    (root / 'list.txt').write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        check_split(dataset(root, ann_file='list.txt') | dict(type='FolderDataset'))
