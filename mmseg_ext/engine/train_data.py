"""Training data as a function of the seed and the place in the training, and of nothing else.

The host seeds the workers once: augmentation depends on their number, repeats in every epoch, and
differs after a resume. Here each sample is seeded by (seed, rank, epoch, place in the epoch).
"""

import random
from collections.abc import Iterator
from itertools import chain, count, islice
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from torch.utils.data import DataLoader, Dataset, Sampler

from mmseg_ext.host import restart_sampler

from ..errors import UserError
from ..segmentors.batches import check_label
from ..segmentors.protocols import HasDataInfo, HasEpochs, HasSeed


class BadSampleError(UserError):
    """A sample that cannot be loaded; the message names its files."""


def seed_everything(*key: int) -> None:
    """Seeds Python, NumPy and torch (CUDA too) of this process; any two keys are unrelated."""
    words = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(words[0])
    np.random.seed(words[1])
    torch.manual_seed(words[2])


class _NotCopied:
    """The host copies the settings of a dataloader, with what is built in them already."""

    def __deepcopy__(self, memo: dict) -> '_NotCopied':
        return self


class SeededDataset(_NotCopied, Dataset):
    """Any data set, read at (index, epoch, position) as ``ResumableSampler`` gives them.

    Attributes are those of the data set inside, which is ``dataset``.

    Args:
        dataset: Data set.
        seed: Seed of the run.
        label_limits: Number of classes and label of ignored pixels; None for labels of any value.

    Raises:
        BadSampleError: Loading or the pipeline failed, or a label is no class.
    """

    def __init__(
        self, dataset: Any, seed: int, label_limits: tuple[int, int] | None = None
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.names_files = isinstance(dataset, HasDataInfo)
        self.label_limits = label_limits

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int, int]) -> Any:
        if isinstance(key, int):
            return self.dataset[key]
        index, epoch, position = key
        seed_everything(self.seed, get_rank(), epoch, position)
        try:
            sample = self.dataset[index]
            self._check_label(sample)
            return sample
        except Exception as error:
            is_mistake = isinstance(error, UserError)
            reason = str(error) if is_mistake else f'{type(error).__name__}: {error}'
            raise BadSampleError(f'{self._files(index)} cannot be used ({reason})') from error

    def _check_label(self, sample: Any) -> None:
        """Refuses a label with values that are no class, while it is still in the worker."""
        packed: Any = sample.get('data_samples', ()) if isinstance(sample, dict) else ()
        if self.label_limits is not None and 'gt_sem_seg' in packed:
            check_label(packed.gt_sem_seg.data, *self.label_limits)

    def _files(self, index: int) -> str:
        info = self.dataset.get_data_info(index) if self.names_files else {}
        names = [str(info[key]) for key in ('img_path', 'seg_map_path') if info.get(key)]
        return ' with '.join(names) or f'sample {index}'

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset' or name.startswith('__'):  # asked for while unpickling, or by torch
            raise AttributeError(name)
        return getattr(self.dataset, name)


class ResumableSampler(_NotCopied, Sampler):
    """Any sampler, read from any place; gives (index, epoch, position in the epoch).

    Args:
        sampler: Sampler whose order depends on its seed and epoch alone.
        endless: Whether epochs follow each other without end, for loops that count iterations.

    Raises:
        ValueError: a sampler without end, and a loop that needs epochs.
    """

    def __init__(self, sampler: Any, *, endless: bool) -> None:
        if not endless and isinstance(sampler, InfiniteSampler):
            name = type(sampler).__name__
            raise UserError(f'{name} has no epochs: EpochBasedTrainLoop needs another sampler')
        self.sampler = sampler
        self.has_epochs = isinstance(sampler, HasEpochs)
        self.has_seed = isinstance(sampler, HasSeed)
        self.endless = endless
        self.epoch = 0
        self.skipped = 0  # samples of this rank before the first one given

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        epochs = count() if self.endless else [self.epoch]
        return islice(chain.from_iterable(map(self._positions, epochs)), self.skipped, None)

    def _positions(self, epoch: int) -> Iterator[tuple[int, int, int]]:
        if isinstance(self.sampler, InfiniteSampler):
            restart_sampler(self.sampler)  # it would go on where another iterator stopped
        elif self.has_epochs:
            self.sampler.set_epoch(epoch)
        for position, index in enumerate(self.sampler):
            yield index, epoch, position

    def set_seed(self, seed: int) -> None:
        """Takes the seed of the run that is resumed, where the sampler has one."""
        if self.has_seed:
            self.sampler.seed = seed


def skip_iterations(dataloader: DataLoader, iterations: int) -> None:
    """Makes the next iterator of a dataloader start later, without loading what is skipped."""
    batch_size = dataloader.batch_sampler.batch_size  # type: ignore[union-attr]
    dataloader.sampler.skipped = iterations * batch_size  # type: ignore[attr-defined]


def end_workers(dataloader: DataLoader | None) -> None:
    """Ends the persistent workers of a dataloader, if it has any; its next iterator has new ones.

    Without this the garbage collector closes their queues before they get the message that ends
    them, and each one waits for it until a time limit of 5 s.
    """
    iterator = getattr(dataloader, '_iterator', None)
    if iterator is not None:
        dataloader._iterator = None  # type: ignore[union-attr]
        iterator._shutdown_workers()
