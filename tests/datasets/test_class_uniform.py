import random

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import RepeatDataset
from mmengine.runner.loops import _InfiniteDataloaderIterator
from mmseg.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import DataLoader

from mmseg_ext.datasets import class_uniform
from mmseg_ext.datasets.class_centroids import class_centroids, epoch_counts, tile_origins
from mmseg_ext.datasets.class_uniform import ClassCentroidDataset, ClassUniformSampler

CLASSES = ('ground', 'rare', 'never', 'sky')


def slow_centroids(label, num_classes, tile, cover_partial=False):
    """The obvious formula: mean position of the pixels of each class in each tile."""
    rows = []
    for c in range(num_classes):
        for x0, y0 in tile_origins(*label.shape, tile, cover_partial):
            y, x = np.nonzero(label[y0 : y0 + tile, x0 : x0 + tile] == c)
            if len(x):
                rows.append((c, x0 + int(x.mean()), y0 + int(y.mean())))
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def blocks(size, num_classes, seed, cell=7):
    rng = np.random.default_rng(seed)
    h, w = size
    values = np.append(np.arange(num_classes), 255)
    coarse = rng.choice(values, (h // cell + 1, w // cell + 1)).astype(np.uint8)
    return coarse.repeat(cell, 0).repeat(cell, 1)[:h, :w]


@pytest.mark.parametrize('cover_partial', [False, True])
@pytest.mark.parametrize('size', [(64, 96), (65, 97), (31, 120), (10, 10)])
@pytest.mark.parametrize('cell', [1, 7])
def test_centroids_are_the_mean_positions(size, cell, cover_partial):
    for seed in range(3):
        label = blocks(size, 5, seed, cell)
        ours = class_centroids(label, 5, 32, cover_partial)
        np.testing.assert_array_equal(ours, slow_centroids(label, 5, 32, cover_partial))
        assert ours.dtype == np.int64


def test_labels_of_any_integer_type_give_the_same():
    label = blocks((64, 64), 5, 0)
    for dtype in (np.int16, np.int64):
        np.testing.assert_array_equal(
            class_centroids(label.astype(dtype), 5, 32), class_centroids(label, 5, 32)
        )


def test_a_single_pixel_is_its_own_centre():
    label = np.full((64, 64), 255, np.uint8)
    label[40, 33] = 2
    assert class_centroids(label, 5, 32).tolist() == [[2, 33, 40]]


def test_an_ignored_label_has_no_centres():
    assert class_centroids(np.full((64, 64), 255, np.uint8), 5, 32).shape == (0, 3)


def test_a_ring_has_its_centre_inside():
    label = np.zeros((32, 32), np.uint8)
    label[8:24, 8:24] = 1
    label[9:23, 9:23] = 2
    assert class_centroids(label, 3, 32)[1].tolist() == [1, 15, 15]


def test_whole_tiles_drop_the_rest_and_partial_tiles_cover_it():
    assert tile_origins(100, 170, 48).tolist() == [
        [0, 0],
        [48, 0],
        [96, 0],
        [0, 48],
        [48, 48],
        [96, 48],
    ]
    assert tile_origins(40, 170, 48).shape == (0, 2)
    for h, w in [(100, 170), (40, 170), (96, 144), (48, 48), (5, 5)]:
        seen = np.zeros((h, w), bool)
        for x, y in tile_origins(h, w, 48, cover_partial=True):
            assert x <= max(w - 48, 0) and y <= max(h - 48, 0)
            seen[y : y + 48, x : x + 48] = True
        assert seen.all()
        if h % 48 == w % 48 == 0:
            assert len(tile_origins(h, w, 48, cover_partial=True)) == h * w // 48**2


def test_the_counts_of_cityscapes():
    counts = epoch_counts(2975, 0.5, [100] * 19)
    assert (counts.per_class == 78).all()
    assert (counts.plain, counts.epoch_len) == (1493, 2975)


def test_a_class_without_centroids_makes_the_epoch_shorter():
    counts = epoch_counts(100, 0.5, [3, 0, 40])
    assert counts.per_class.tolist() == [16, 0, 16]
    assert counts.max_repeat.tolist() == [6, 0, 1]
    assert (counts.plain, counts.epoch_len) == (52, 84)


def test_with_a_share_of_one_all_items_are_drawn_by_class():
    counts = epoch_counts(40, 1.0, [5, 5, 5, 5])
    assert (counts.plain, counts.epoch_len) == (0, 40)


@pytest.fixture
def root(tmp_path):
    """Twelve images of 60x90; class 1 is one pixel of the first two, class 2 never occurs."""
    (tmp_path / 'images').mkdir()
    (tmp_path / 'masks').mkdir()
    for i in range(12):
        label = np.zeros((60, 90), np.uint8)
        label[:20] = 9  # stands for sky
        label[-5:] = 8  # stands for what is ignored
        if i < 2:
            label[50 - i, 10 + 70 * i] = 1
        cv2.imwrite(str(tmp_path / f'images/{i:02d}.png'), np.zeros((60, 90, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f'masks/{i:02d}.png'), label)
    return tmp_path


def config(root, **kwargs):
    return {
        **dict(
            type='FolderDataset',
            data_root=str(root),
            data_prefix=dict(img_path='images', seg_map_path='masks'),
            serialize_data=False,  # spares the host's slow gc.collect()
            metainfo=dict(classes=CLASSES),
            label_map={9: 3, 8: 255},
            pipeline=[
                dict(type='LoadImage'),
                dict(type='LoadSegMap'),
                dict(type='RandomScaleCrop', crop_size=(32, 32)),
                dict(type='RandomFlip', prob=0.5),
                dict(type='PackSegInputs'),
            ],
        ),
        **kwargs,
    }


def build(root, dataset=None, **kwargs):
    kwargs.setdefault('cache_dir', str(root / 'cache'))
    return DATASETS.build(
        dict(type='ClassCentroidDataset', dataset=dataset or config(root), **kwargs)
    )


def test_items_are_the_images_then_the_centroids(root):
    dataset = build(root)
    # Smaller than a tile: two tiles of 60, the second shifted inwards.
    assert dataset.num_images == 12
    assert len(dataset) == 12 + len(dataset.centroids)
    rare = dataset.centroids[dataset.centroids[:, 1] == 1]
    assert rare.tolist() == [[0, 1, 10, 50], [1, 1, 80, 49]]
    sky = dataset.centroids[dataset.centroids[:, 1] == 3]
    assert sky[:2].tolist() == [[0, 3, 29, 9], [0, 3, 59, 9]]
    assert not (dataset.centroids[:, 1] == 2).any()
    item = 12 + np.flatnonzero(dataset.centroids[:, 1] == 1)[1]
    info = dataset.get_data_info(item)
    assert info['crop_center'] == (80, 49) and info['crop_class'] == 1
    assert 'crop_center' not in dataset.get_data_info(3)


def test_the_crop_of_a_centroid_shows_its_class(root):
    dataset = build(root)
    for repeat in range(5):
        np.random.seed(repeat)
        for row in np.flatnonzero(dataset.centroids[:, 1] == 3):
            label = dataset[12 + row]['data_samples'].gt_sem_seg.data
            assert label.shape == (1, 32, 32)
            assert (label == 3).any()


def test_concatenated_and_repeated_data_sets_are_followed(root):
    five, twelve = config(root, indices=5), config(root)
    parts = [five, dict(type='RepeatDataset', dataset=twelve, times=2)]
    dataset = build(root, dict(type='ConcatDataset', datasets=parts))
    assert dataset.num_images == 5 + 2 * 12
    rare = dataset.centroids[dataset.centroids[:, 1] == 1]
    assert rare.tolist() == [
        [image, 1, *point]
        for start in (0, 5, 17)
        for image, point in ((start, (10, 50)), (start + 1, (80, 49)))
    ]
    for row in np.flatnonzero(dataset.centroids[:, 1] == 1):
        item = dataset[29 + row]
        assert item['inputs'].shape == (3, 32, 32)
        assert item['data_samples'].img_path.endswith(f'0{row % 2}.png')


def test_processes_and_this_process_find_the_same(root):
    dataset = build(root, RepeatDataset(dataset=DATASETS.build(config(root)), times=6))
    assert dataset.num_images == 72  # enough for processes
    alone = build(
        root,
        RepeatDataset(dataset=DATASETS.build(config(root)), times=6),
        num_workers=0,
        cache_dir=str(root / 'other'),
    )
    np.testing.assert_array_equal(dataset.centroids, alone.centroids)


@pytest.mark.parametrize('times', [1, 6])  # in this process, and in several
def test_making_statistics_draws_from_no_global_generator(root, times):
    states = [torch.get_rng_state(), np.random.get_state()[1], random.getstate()]
    for _ in range(2):  # makes them, then reads them
        build(root, RepeatDataset(dataset=DATASETS.build(config(root)), times=times))
        assert torch.equal(torch.get_rng_state(), states[0])
        np.testing.assert_array_equal(np.random.get_state()[1], states[1])
        assert random.getstate() == states[2]


def test_statistics_are_read_again_and_never_for_other_data(root, monkeypatch):
    built = []
    build_now = ClassCentroidDataset._build
    monkeypatch.setattr(
        ClassCentroidDataset, '_build', lambda self: built.append(1) or build_now(self)
    )
    first = build(root)
    assert len(built) == 1
    np.testing.assert_array_equal(build(root).centroids, first.centroids)
    assert len(built) == 1
    assert [p.suffix for p in (root / 'cache').iterdir()] == ['.npz']  # nothing unfinished

    changes = [
        dict(tile=30),
        dict(cover_partial=True),
        dict(dataset=config(root, label_map={9: 0, 8: 255})),
        dict(dataset=config(root, indices=6)),
        dict(dataset=config(root, reduce_zero_label=True, label_map={8: 3, 7: 255})),
        dict(dataset=config(root, metainfo=dict(classes=(*CLASSES, 'more')))),
    ]
    for i, change in enumerate(changes):
        build(root, **change)
        assert len(built) == 2 + i, change
    cv2.imwrite(str(root / 'masks/05.png'), np.zeros((60, 90), np.uint8))
    changed = build(root)
    assert len(built) == 2 + len(changes)
    assert not ((changed.centroids[:, 0] == 5) & (changed.centroids[:, 1] == 3)).any()


def test_a_wrong_label_is_named_while_statistics_are_made(root):
    cv2.imwrite(str(root / 'masks/07.png'), np.full((60, 90), 200, np.uint8))
    with pytest.raises(ValueError, match=r'masks/07\.png holds the value 200'):
        build(root)
    assert not (root / 'cache').exists()


def test_a_pipeline_that_loads_no_label_is_refused(root):
    with pytest.raises(ValueError, match=r"has only \['LoadImage'\]"):
        build(root, config(root, pipeline=[dict(type='LoadImage')]))


def sampler(root, **kwargs):
    return ClassUniformSampler(build(root), **{'seed': 7, **kwargs})


def test_an_epoch_holds_what_its_counts_say(root):
    dataset = build(root)
    ours = ClassUniformSampler(dataset, pct=0.7, seed=0)
    k = int(12 * 0.7 / 4)
    for epoch in range(4):
        items = ours.epoch_list(epoch)
        assert len(items) == len(ours) == 12 - 4 * k + 3 * k
        plain = items[items < 12]
        assert len(plain) == len(set(plain.tolist())) == 12 - 4 * k
        classes = dataset.centroids[items[items >= 12] - 12, 1]
        assert np.bincount(classes, minlength=4).tolist() == [k, k, 0, k]


def test_a_short_list_is_cycled_before_an_entry_comes_again(root):
    ours = sampler(root, pct=1.0)
    ours.counts = ours.counts._replace(per_class=np.array([0, 5, 0, 0]), plain=0)
    entries, times = np.unique(ours.epoch_list(0), return_counts=True)
    assert len(entries) == 2 and sorted(times) == [2, 3]


def test_the_list_depends_on_seed_and_epoch_alone(root):
    lists = {
        (seed, epoch): sampler(root, seed=seed).epoch_list(epoch).tolist()
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    np.random.seed(99)
    assert len({tuple(items) for items in lists.values()}) == 4
    again = sampler(root, seed=2)
    again.set_epoch(1)
    assert list(again) == lists[2, 1]


@pytest.mark.parametrize('round_up', [True, False])
def test_the_ranks_share_one_list(root, monkeypatch, round_up):
    whole = sampler(root, pct=0.4, round_up=round_up)
    expected = whole.epoch_list(3)
    parts = []
    for rank in range(5):
        monkeypatch.setattr(class_uniform, 'get_dist_info', lambda rank=rank: (rank, 5))
        part = sampler(root, pct=0.4, round_up=round_up)
        part.set_epoch(3)
        parts.append(list(part))
        assert len(part) == len(parts[-1])
    lengths = {len(part) for part in parts}
    assert len(lengths) == 1 if round_up else max(lengths) - min(lengths) == 1
    joined = [parts[i % 5][i // 5] for i in range(sum(map(len, parts)))]
    assert joined[: len(expected)] == expected.tolist()
    assert joined[len(expected) :] == expected[: len(joined) - len(expected)].tolist()


def test_the_number_of_workers_does_not_change_the_order(root):
    class Positions(torch.utils.data.Dataset):
        def __init__(self, dataset):
            self.dataset = dataset

        def __getitem__(self, index):
            return index

        def __len__(self):
            return len(self.dataset)

    data = Positions(build(root))
    ours = DATA_SAMPLERS.build(
        dict(type='ClassUniformSampler', seed=1), default_args=dict(dataset=data)
    )  # looks through the wrapper
    orders = [
        torch.cat(list(DataLoader(data, 2, sampler=ours, num_workers=n))).tolist() for n in (0, 2)
    ]
    assert orders[0] == orders[1] == list(ours)


def test_a_loop_of_iterations_goes_on_with_the_next_epoch(root):
    """The host's iterator for such loops; ours in `engine` does the same without its pause."""
    ours = sampler(root)
    lists = [ours.epoch_list(epoch).tolist() for epoch in (0, 1)]
    loader = DataLoader(range(100), batch_size=None, sampler=ours, num_workers=0)
    batches = _InfiniteDataloaderIterator(loader)
    assert [int(next(batches)) for _ in range(2 * len(ours))] == lists[0] + lists[1]


def test_too_few_images_for_class_items_are_said(root):
    with pytest.warns(UserWarning, match='12 images are too few for 4 classes at pct=0.3'):
        ours = sampler(root, pct=0.3)
    assert sorted(ours) == list(range(12))


@pytest.mark.parametrize('pct', [-0.1, 1.1])
def test_an_impossible_share_is_refused(root, pct):
    with pytest.raises(ValueError, match='must be a fraction from 0 to 1'):
        sampler(root, pct=pct)


def test_a_data_set_without_centroids_is_refused(root):
    with pytest.raises(ValueError, match='got a FolderDataset: wrap the data set'):
        ClassUniformSampler(DATASETS.build(config(root)))


def _build_on_rank(rank, root, address):
    torch.distributed.init_process_group('gloo', init_method=address, rank=rank, world_size=2)
    dataset = build(root)
    ours = ClassUniformSampler(dataset)
    np.savez(root / f'{rank}.npz', rows=dataset.centroids, items=list(ours), seed=ours.seed)
    torch.distributed.destroy_process_group()


def test_one_process_makes_the_statistics_and_both_have_them(root, tmp_path):
    address = f'file://{tmp_path}/store'
    torch.multiprocessing.start_processes(
        _build_on_rank, (root, address), nprocs=2, start_method='fork'
    )
    first, second = (np.load(root / f'{rank}.npz') for rank in (0, 1))
    np.testing.assert_array_equal(first['rows'], second['rows'])
    assert first['seed'] == second['seed']
    assert len(list((root / 'cache').iterdir())) == 1
    alone = ClassUniformSampler(build(root), seed=int(first['seed'])).epoch_list(0)
    both = np.stack([first['items'], second['items']], axis=1).ravel()
    assert both[: len(alone)].tolist() == alone.tolist()
