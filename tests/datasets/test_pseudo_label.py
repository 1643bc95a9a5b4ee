"""Reading a model's labels: threshold, merge, classes, and sampling."""

import json
import re
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS, TRANSFORMS

from mmseg_ext.datasets.checks import check_split
from mmseg_ext.datasets.cityscapes import LABEL_IDS, CityscapesIdsDataset
from mmseg_ext.datasets.class_uniform import ClassUniformSampler
from mmseg_ext.datasets.pseudo_label import confident_labels, first_kept
from tests.oracles.auto_label import read_pixel_by_pixel

CLASSES = ('road', 'bus', 'train')
SIZE = (20, 30)
# at full size: single pixels stay
CROP = dict(type='RandomScaleCrop', crop_size=(8, 8), ratio_range=(1, 1))


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.asarray(array, np.uint8))


def write(root, labels, probs=None, *, human=None, classes=CLASSES, label_ids=None, **summary):
    """Images and auto-labels; no `probs` for labels that were thresholded when written."""
    for i, label in enumerate(labels):
        save(root / f'images/city/{i}_img.jpg', np.zeros((*np.shape(label), 3)))
        save(root / f'auto/label/city/{i}_img.png', label)
        if probs is not None:
            save(root / f'auto/prob/city/{i}_img.png', probs[i])
        if human is not None and human[i] is not None:
            save(root / f'human/city/{i}_ids.png', human[i])
    summary = dict(
        classes=classes,
        palette=[[c, 0, 0] for c in range(len(classes))],
        label_ids=list(label_ids or range(len(classes))),
        threshold=None if probs is not None else 0.9,
        **summary,
    )
    (root / 'auto/auto_label.json').write_text(json.dumps(summary))


def config(root, *, loader=None, human=False, **kwargs):
    prefix = dict(img_path='images', seg_map_path='auto')
    return dict(
        type='PseudoLabelDataset',
        data_root=str(root),
        data_prefix={**prefix, 'human_path': 'human'} if human else prefix,
        img_suffix='_img.jpg',
        human_suffix='_ids.png',
        serialize_data=False,  # spares the host's slow gc.collect()
        pipeline=[dict(type='LoadImage'), dict(type='LoadPseudoLabels', **(loader or {}))],
        **kwargs,
    )


def read(root, index=0, **kwargs):
    return DATASETS.build(config(root, **kwargs))[index]['gt_seg_map']


@pytest.mark.parametrize(
    ('threshold', 'first'), [(0.9, 230), (0.5, 128), (0, 0), (0.2, 51), (0.6, 153), (1, 255)]
)
def test_a_pixel_is_kept_from_the_next_step_of_the_file_on(threshold, first):
    assert first_kept(threshold) == first
    prob = np.arange(256, dtype=np.uint8)[None]
    kept = confident_labels(np.zeros_like(prob), prob, threshold) == 0
    assert kept[0].tolist() == [p >= first for p in range(256)]


def test_each_class_may_have_its_threshold(tmp_path):
    label = np.array([[0, 0, 1, 1, 2, 2, 255]], np.uint8)
    prob = np.array([[229, 230, 127, 128, 0, 255, 0]], np.uint8)
    thresholds = [0.9, 0.5, 0]
    expected = [[255, 0, 255, 1, 2, 2, 255]]
    assert confident_labels(label, prob, thresholds).tolist() == expected
    human = np.array([[2, 1, 1, 1, 1, 1, 1]], np.uint8)
    merged = confident_labels(label, prob, thresholds, human=human, merge=(1,))
    assert merged.tolist() == [[255, 1, 255, 1, 255, 1, 255]]  # the threshold of class 1
    write(tmp_path, [label], [prob])
    assert read(tmp_path, loader=dict(threshold=thresholds)).tolist() == expected


def write_released(root, labels, probs, layout):
    """Labels without `auto_label.json`, in Cityscapes' label ids."""
    write(root, labels, probs)
    (root / 'auto/auto_label.json').unlink()
    if layout == 'sub-folders':
        return
    for path in list((root / 'auto/prob').rglob('*.png')):
        name = path.relative_to(root / 'auto/prob')
        beside = name.with_name(f'{name.stem}_prob.png')
        target = root / 'elsewhere' / name if layout == 'two folders' else root / 'auto' / beside
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    for path in list((root / 'auto/label').rglob('*.png')):
        target = root / 'auto' / path.relative_to(root / 'auto/label')
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    for folder in ('label/city', 'label', 'prob/city', 'prob'):
        (root / 'auto' / folder).rmdir()


@pytest.mark.parametrize('layout', ['sub-folders', 'one folder', 'two folders'])
def test_released_labels_are_read_without_our_summary(tmp_path, layout):
    rng = np.random.default_rng(0)
    labels = rng.choice([*LABEL_IDS, 0, 1, 255], (2, *SIZE)).astype(np.uint8)
    probs = rng.integers(200, 256, (2, *SIZE)).astype(np.uint8)
    write_released(tmp_path, labels, probs, layout)
    data = config(tmp_path)
    if layout == 'two folders':
        data['data_prefix']['prob_path'] = 'elsewhere'
    data = DATASETS.build(data)
    assert data.metainfo['classes'] == CityscapesIdsDataset.METAINFO['classes']
    for i in range(2):
        expected = read_pixel_by_pixel(
            labels[i], probs[i], labels[i], LABEL_IDS, threshold=0.9, merge=()
        )
        np.testing.assert_array_equal(data[i]['gt_seg_map'], expected)
        assert 0 < (data[i]['gt_seg_map'] < 255).mean() < 0.5


def test_released_labels_may_have_other_names_than_the_images(tmp_path):
    write_released(tmp_path, [np.full(SIZE, 7)], [np.full(SIZE, 255)], 'one folder')
    city = tmp_path / 'auto/city'
    for end in ('', '_prob'):
        (city / f'0_img{end}.png').rename(city / f'0_labelIds{end}.png')
    with pytest.raises(ValueError, match=r'0_img\.png, the label of the first image, does not'):
        read(tmp_path)
    assert (read(tmp_path, seg_map_suffix='_labelIds.png') == 0).all()


def test_hard_labels_without_summary_need_no_probabilities(tmp_path):
    write(tmp_path, [np.full(SIZE, 8)])
    (tmp_path / 'auto/auto_label.json').unlink()
    assert (read(tmp_path, loader=dict(threshold=None)) == 1).all()


@pytest.mark.parametrize('merge', [(), (14, 15, 16), (16, 0), tuple(range(19))])
def test_labels_are_those_of_the_obvious_formula_in_label_ids(tmp_path, merge):
    rng = np.random.default_rng(0)
    cells = rng.choice([*LABEL_IDS, 0, 255], (3, 5, 6))
    labels = cells.repeat(4, 1).repeat(5, 2).astype(np.uint8)
    human = rng.choice([*LABEL_IDS, 0, 3], (3, *SIZE)).astype(np.uint8)
    probs = rng.integers(120, 256, (3, *SIZE)).astype(np.uint8)
    meta = CityscapesIdsDataset.METAINFO
    write(tmp_path, labels, probs, human=human, classes=meta['classes'], label_ids=LABEL_IDS)
    for threshold in (0.5, 0.9):
        for i in range(3):
            ours = read(tmp_path, i, human=True, loader=dict(threshold=threshold, merge=merge))
            slow = read_pixel_by_pixel(
                labels[i], probs[i], human[i], LABEL_IDS, threshold=threshold, merge=merge
            )
            np.testing.assert_array_equal(ours, slow)


def test_a_merge_is_the_union_and_needs_the_probability_of_the_models_class():
    label = np.array([[1, 1, 0, 0, 0]], np.uint8)
    human = np.array([[255, 1, 1, 1, 2]], np.uint8)
    prob = np.array([[255, 255, 255, 100, 255]], np.uint8)
    merged = confident_labels(label, prob, 0.9, human=human, merge=(2, 1))
    assert merged.tolist() == [[1, 1, 1, 255, 0]]  # class 2 is nowhere in the model's label


def test_a_class_that_a_smaller_one_has_covered_is_not_merged():
    label = np.array([[1, 2, 0]], np.uint8)
    human = np.array([[2, 1, 2]], np.uint8)
    assert confident_labels(label, None, human=human, merge=(1, 2)).tolist() == [[1, 1, 0]]
    assert confident_labels(label, None, human=human, merge=(2,)).tolist() == [[2, 2, 2]]


def test_what_lies_outside_of_the_box_is_ignored_before_the_merge(tmp_path):
    label, human = np.ones(SIZE), np.zeros(SIZE)
    human[0, 0] = 1
    write(tmp_path, [label], [np.full(SIZE, 255)], human=[human])
    box = dict(valid_box=(0.1, 0.2, 0.9, 1.0))
    expected = np.full(SIZE, 255)
    expected[2:18, 6:] = 1
    np.testing.assert_array_equal(read(tmp_path, loader=box), expected)
    expected[0, 0] = 1
    ours = read(tmp_path, human=True, loader=dict(box, merge=(1,)))
    np.testing.assert_array_equal(ours, expected)


def test_human_labels_need_to_exist_only_where_they_are_asked_for(tmp_path):
    write(
        tmp_path,
        [np.zeros(SIZE), np.ones(SIZE)],
        [np.full(SIZE, 255)] * 2,
        human=[None, np.ones(SIZE)],
    )
    loader = dict(merge=(1,))
    assert (read(tmp_path, 0, human=True, loader=loader) == 0).all()
    assert (read(tmp_path, 1, human=True, loader=loader) == 1).all()


def test_human_labels_may_have_values_of_their_own(tmp_path):
    label = np.zeros(SIZE)
    label[0, 0] = 1
    human = np.full(SIZE, 9)
    write(tmp_path, [label], [np.full(SIZE, 255)], human=[human])
    plain = read(tmp_path, human=True, loader=dict(merge=(1,)))
    assert (plain == 1).sum() == 1
    mapped = read(tmp_path, human=True, loader=dict(merge=(1,)), label_map={9: 1})
    assert (mapped == 1).all()
    reduced = read(
        tmp_path, human=True, loader=dict(merge=(1,)), label_map={8: 1}, reduce_zero_label=True
    )
    assert (reduced == 1).all()


def test_labels_that_were_thresholded_are_read_as_they_are(tmp_path):
    label = np.full(SIZE, 255)
    label[3] = 2
    write(tmp_path, [label])
    np.testing.assert_array_equal(read(tmp_path, loader=dict(threshold=None)), label)


def test_the_check_before_training_counts_what_training_sees(tmp_path):
    label, prob = np.zeros(SIZE), np.full(SIZE, 255)
    label[:5] = 2
    prob[:, :10] = 100
    write(tmp_path, [label] * 2, [prob] * 2)
    report = check_split(config(tmp_path))
    assert not report.problems and not report.warnings[1:]  # bus is never seen
    assert report.pixels.tolist() == [2 * 15 * 20, 0, 2 * 5 * 20]
    assert report.ignored == 2 * 20 * 10
    (tmp_path / 'auto/label/city/1_img.png').unlink()  # of a run that is not at its end
    assert '1_img.png does not exist' in check_split(config(tmp_path)).problems[0]


@pytest.fixture
def fine(tmp_path):
    """Ten images of roads with human labels, one of them with a bus; two auto-labelled trains.

    One of these trains, and the bus of the third auto-labelled image, are unsure.
    """
    for i in range(10):
        label = np.zeros(SIZE)
        label[4, 5] = i == 0
        save(tmp_path / f'fine/images/{i}.png', np.zeros((*SIZE, 3)))
        save(tmp_path / f'fine/labels/{i}.png', label)
    labels, probs = np.zeros((3, *SIZE)), np.full((3, *SIZE), 255)
    labels[0, 8, 20] = labels[1, 9, 21] = 2
    labels[2, 10:12, 22:24] = 1
    probs[1, 9, 21] = probs[2, 10:12, 22:24] = 150
    write(tmp_path, labels, probs)
    return dict(
        type='FolderDataset',
        data_root=str(tmp_path / 'fine'),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        metainfo=dict(classes=CLASSES, palette=[[c, 0, 0] for c in range(3)]),
        serialize_data=False,
        pipeline=[
            dict(type='LoadImage'),
            dict(type='LoadSegMap'),
            CROP,
            dict(type='PackSegInputs'),
        ],
    )


def auto(root, threshold=0.9):
    data = config(root, loader=dict(threshold=threshold))
    crop = [CROP, dict(type='PackSegInputs')]
    return {**data, 'pipeline': [*data['pipeline'], *crop]}


def centroids(root, **kwargs):
    return DATASETS.build(
        dict(type='ClassCentroidDataset', cache_dir=str(root / 'cache'), **kwargs)
    )


@pytest.mark.parametrize('form', ['extra', 'ConcatDataset'])
def test_the_sampler_counts_the_labels_above_the_threshold(tmp_path, fine, form):
    def trains(threshold):
        if form == 'extra':
            data = centroids(tmp_path, dataset=fine, extra=auto(tmp_path, threshold))
        else:
            parts = [fine, auto(tmp_path, threshold)]
            data = centroids(tmp_path, dataset=dict(type='ConcatDataset', datasets=parts))
        assert data.num_images == (10 if form == 'extra' else 13)
        for row in np.flatnonzero(data.centroids[:, 1] > 0):
            label = data[data.num_images + row]['data_samples'].gt_sem_seg.data
            assert (label == data.centroids[row, 1]).any()
        return data.centroids[data.centroids[:, 1] > 0].tolist()

    unsure = [[12, 1, 22, 10], [11, 2, 21, 9]]
    sure = [[0, 1, 5, 4], [10, 2, 20, 8]]
    assert trains(0.9) == sure
    assert trains(0.5) == sorted(sure + unsure, key=lambda row: (row[1], row[0]))


def test_extra_images_come_with_their_classes_and_until_their_epoch(tmp_path, fine):
    data = centroids(tmp_path, dataset=fine, extra=auto(tmp_path, 0.5))
    sampler = ClassUniformSampler(data, pct=0.9, seed=0, extra_classes=(2,), extra_epochs=2)
    assert sampler.counts.per_class.tolist() == [3, 3, 3]
    for epoch in range(4):
        items = sampler.epoch_list(epoch)
        assert len(items) == len(sampler) == 10
        shown = data.centroids[items[items >= 10] - 10]
        assert (shown[shown[:, 1] < 2, 0] < 10).all()  # the unsure bus is no item
        assert (shown[:, 1] == 2).sum() == (3 if epoch < 2 else 0)
        # No human label has a train: ordinary images take its place.
        assert (items < 10).sum() == (1 if epoch < 2 else 4)
    everything = ClassUniformSampler(data, pct=0.9, seed=0)
    assert [len(entries) for entries in everything.entries] == [26, 2, 2]
    assert [len(entries) for entries in everything.ordinary_entries] == [20, 1, 0]


def test_an_image_that_is_ignored_everywhere_is_read_and_never_drawn_by_class(tmp_path, fine):
    write(tmp_path, [np.ones(SIZE)] * 3, [np.zeros(SIZE)] * 3)
    assert (read(tmp_path) == 255).all()
    data = centroids(tmp_path, dataset=fine, extra=auto(tmp_path))
    assert (data.centroids[:, 0] < 10).all()
    alone = centroids(tmp_path, dataset=auto(tmp_path))
    assert sorted(ClassUniformSampler(alone, seed=0).epoch_list(0)) == [0, 1, 2]


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(loader=dict(threshold=1.5)), 'threshold=1.5 must be a probability'),
        (dict(loader=dict(threshold=[0.5, 2, 0])), 'threshold=2 must be a probability'),
        (
            dict(loader=dict(threshold=[0.5, 0.9])),
            'threshold has 2 values, but there are 3 classes',
        ),
        (dict(loader=dict(valid_box=(0, 0, 839, 2029))), 'in fractions from 0 to 1'),
        (dict(loader=dict(merge=(1,))), 'set human_path in data_prefix, or remove merge'),
        (dict(human=True), 'human does not exist'),
        (dict(metainfo=dict(classes=('sky', 'bus'))), 'labels of 3 classes .road, bus, train'),
    ],
)
def test_what_cannot_be_read_gets_a_sentence(tmp_path, change, words):
    write(tmp_path, [np.ones(SIZE)], [np.full(SIZE, 255)])
    with pytest.raises(ValueError, match=words):
        read(tmp_path, **change)


def test_wrong_folders_and_files_get_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r'auto_label\.json, which names .* does not exist'):
        read(tmp_path)
    write(tmp_path, [np.ones(SIZE)])
    with pytest.raises(ValueError, match='was thresholded when it was written'):
        read(tmp_path)
    write(tmp_path, [np.ones(SIZE)], [np.ones((5, 6))])
    with pytest.raises(ValueError, match=r'0_img\.png is 6x5 and the label .* is 30x20'):
        read(tmp_path)


def test_labels_of_another_kind_are_not_read_without_threshold(tmp_path, fine):
    write(tmp_path, [np.ones(SIZE)], [np.full(SIZE, 255)])
    pipeline = [dict(type='LoadImage'), dict(type='LoadSegMap')]
    with pytest.raises(ValueError, match='needs LoadPseudoLabels in its pipeline'):
        DATASETS.build({**config(tmp_path), 'pipeline': pipeline})
    fine['pipeline'] = [dict(type='LoadImage'), dict(type='LoadPseudoLabels')]
    with pytest.raises(ValueError, match=r'0\.png is no label of a PseudoLabelDataset'):
        DATASETS.build(fine)[0]


def test_extra_images_of_other_classes_are_refused(tmp_path, fine):
    fine['metainfo'] = dict(classes=('sky', 'bus', 'train'))
    with pytest.raises(ValueError, match=r'extra has 3 classes .road, .* data set 3 .sky, '):
        centroids(tmp_path, dataset=fine, extra=auto(tmp_path))


def test_an_extra_class_that_is_none_is_refused(tmp_path, fine):
    data = centroids(tmp_path, dataset=fine, extra=auto(tmp_path))
    with pytest.raises(ValueError, match=r'extra_classes=\[3\]: the data set has the classes 0 to'):
        ClassUniformSampler(data, extra_classes=(3,))


def test_the_statistics_depend_on_how_labels_are_read():
    shown = [
        repr(TRANSFORMS.build(dict(type='LoadPseudoLabels', **change)))
        for change in ({}, dict(threshold=0.5), dict(merge=[1]), dict(valid_box=(0, 0, 1, 0.5)))
    ]
    assert len(set(shown)) == 4


BASE = """
train_pipeline = [dict(type='LoadImage'), dict(type='LoadSegMap'), dict(type='PackSegInputs')]
train_dataloader = dict(dataset=dict(
    type='FolderDataset', data_root={root!r}, img_suffix='_img.jpg', seg_map_suffix='_ids.png',
    metainfo=dict(classes={classes!r}, palette={palette!r}), reduce_zero_label={reduced},
    data_prefix=dict(img_path='images', seg_map_path='human'), pipeline=train_pipeline))
"""


@pytest.mark.parametrize('reduced', [False, True])
def test_the_lines_of_the_page_join_fine_labels_and_auto_labels(tmp_path, reduced):
    page = (Path(__file__).parents[2] / 'configs/hmsa/README.md').read_text()
    (lines,) = re.findall(r'^    auto_labelled = .*?(?=^\S)', page, re.MULTILINE | re.DOTALL)
    lines = textwrap.dedent(lines).replace('IMAGES', f'{tmp_path}/images')
    lines = lines.replace('OUT', f'{tmp_path}/auto')
    write(tmp_path, [np.ones(SIZE)], [np.full(SIZE, 255)], human=[np.full(SIZE, 2)])
    palette = json.loads((tmp_path / 'auto/auto_label.json').read_text())['palette']
    base = BASE.format(root=str(tmp_path), classes=CLASSES, palette=palette, reduced=reduced)
    (tmp_path / 'base.py').write_text(base)
    (tmp_path / 'child.py').write_text(f"_base_ = './base.py'\n{lines}")
    both = DATASETS.build(Config.fromfile(tmp_path / 'child.py').train_dataloader.dataset)
    labels = [item['data_samples'].gt_sem_seg.data.unique().tolist() for item in both]
    assert labels == [[1 if reduced else 2], [1]]
