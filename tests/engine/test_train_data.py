from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.utils.data import DataLoader, Dataset

from mmseg_ext.engine.train_data import (
    BadSampleError,
    ResumableSampler,
    SeededDataset,
    seed_everything,
    skip_iterations,
)


class Noise(Dataset):
    metainfo = dict(classes=('a',))

    def __len__(self) -> int:
        return 7

    def get_data_info(self, index: int) -> dict:
        return dict(img_path=f'{index}.png')

    def __getitem__(self, index: int) -> list[float]:
        if index == 100:
            raise OSError('broken')
        return [index, np.random.rand(), torch.rand(()).item()]


def loader(*, workers: int = 0, seed: int = 0, endless: bool = False) -> DataLoader:
    sampler = ResumableSampler(DefaultSampler(Noise(), seed=0), endless=endless)
    data = SeededDataset(Noise(), seed)
    return DataLoader(data, 2, sampler=sampler, num_workers=workers, collate_fn=list)


def epoch_of(batches: DataLoader, epoch: int) -> list:
    batches.sampler.set_epoch(epoch)
    return list(batches)


def test_samples_do_not_depend_on_the_number_of_workers():
    assert epoch_of(loader(), 3) == epoch_of(loader(workers=2), 3)


def test_samples_do_not_repeat_between_epochs_or_seeds():
    plain = loader()
    epochs = [*epoch_of(plain, 0), *epoch_of(plain, 1), *epoch_of(loader(seed=1), 0)]
    draws = [sample[1] for batch in epochs for sample in batch]
    assert len(set(draws)) == len(draws) == 21


@pytest.mark.parametrize('workers', [0, 2])
def test_skipping_gives_the_rest_of_the_stream(workers):
    whole = list(islice(loader(endless=True), 11))  # crosses three epochs
    later = loader(endless=True, workers=workers)
    skip_iterations(later, 5)
    assert list(islice(later, 6)) == whole[5:]
    indices = [sample[0] for batch in whole for sample in batch]
    assert sorted(indices[:7]) == sorted(indices[7:14]) == list(range(7))


def test_the_hosts_endless_sampler_starts_anew_with_each_iterator():
    sampler = ResumableSampler(InfiniteSampler(Noise(), seed=0), endless=True)
    first = list(islice(sampler, 20))
    assert list(islice(sampler, 20)) == first
    sampler.skipped = 9
    assert list(islice(sampler, 11)) == first[9:]


def test_a_sampler_without_end_is_refused_where_epochs_are_counted():
    with pytest.raises(ValueError, match='InfiniteSampler has no epochs'):
        ResumableSampler(InfiniteSampler(Noise(), seed=0), endless=False)


def test_the_data_set_inside_is_visible():
    data = SeededDataset(Noise(), 0)
    assert data.metainfo == Noise.metainfo and len(data) == 7 and data[2][0] == 2
    assert not hasattr(data, 'pipeline')


def test_a_sample_that_fails_is_named():
    with pytest.raises(BadSampleError, match=r'^100\.png cannot be used \(OSError: broken\)$'):
        SeededDataset(Noise(), 0)[100, 0, 0]


@pytest.mark.parametrize('other', [(1, 2), (2, 1), (0, 1, 2), (1,)])
def test_keys_that_differ_seed_differently(other):
    def draws(*key: int) -> tuple[Any, ...]:
        seed_everything(*key)
        return np.random.rand(), torch.rand(()).item()

    first = draws(1, 2, 3)
    assert draws(1, 2, 3) == first
    assert not set(draws(*other)).intersection(first)


def test_a_label_that_is_no_class_is_found_where_it_is_loaded():
    class Labels(Noise):
        def __getitem__(self, index: int) -> dict:
            label = torch.full((1, 2, 2), (0, 255, 3)[index])
            return dict(data_samples=SegDataSample(gt_sem_seg=PixelData(data=label)))

    data = SeededDataset(Labels(), 0, (3, 255))
    assert data[0, 0, 0] and data[1, 0, 0]
    with pytest.raises(BadSampleError, match=r'2\.png cannot be used \(a label holds the value 3'):
        data[2, 0, 0]
