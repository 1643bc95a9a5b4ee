"""Class-uniform sampling with tile centroids.

Zhu, Sapra et al., "Improving Semantic Segmentation via Video Propagation and Label Relaxation",
CVPR 2019, credited there to Peter Kontschieder; used by HMSA (arXiv 2005.10821). Released code:
NVIDIA/semantic-segmentation (BSD-3-Clause).

For every tile of every image, the centre of mass (centroid) of each class in the tile is stored. In
each epoch a fraction of the items are class items, the same number for each class. The crop of a
class item contains a centroid of its class. The other items are ordinary images.

Differs from the released code:

- An epoch has a single list, which is split over the ranks. In the released code each rank shuffles
  its own list, and the ranks overlap.
- A class without pixels is skipped (released: KeyError).
- Images smaller than a tile have centroids too.
- Statistics on disk are used only for the data that they were made from.
- Extra images, which only class items show, stop after ``extra_epochs``.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from mmcv.transforms import LoadAnnotations
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.dist import broadcast_object_list, get_dist_info, is_main_process, sync_random_seed
from mmseg.registry import DATA_SAMPLERS, DATASETS
from rich.progress import track
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import UserError
from ..host import wrapped_index
from .class_centroids import class_centroids, epoch_counts

CACHE_VERSION = 1  # increase it when the same labels give other rows


@DATASETS.register_module()
class ClassCentroidDataset(Dataset):
    """Data set of MMSeg, followed by an item for every class centroid of its labels.

    Items 0 to N - 1 are the items of the data set. Item N + j is the image of row j of
    ``centroids``. The pipeline of such an item gets ``crop_center``, the (x, y) of the centroid in
    pixels of the image as loaded, and ``crop_class``. ``RandomScaleCrop`` crops around this centre;
    ``ClassUniformSampler`` chooses the items.

    Labels are read once, by the loading transform of the data set's pipeline. The statistics are
    stored in ``cache_dir``. Their file name depends on the label files (paths, sizes, times), on
    how labels are read, and on the tiles. The main process makes the statistics with several
    workers and sends them to the other processes, so every process of a job must build the data
    set.

    Args:
        dataset: Data set or its config; may be wrapped in ``ConcatDataset`` or ``RepeatDataset``.
        extra: Data set (or its config) of images that only class items show. Its centroids follow
            those of ``dataset`` for each class. HMSA uses the coarse images of Cityscapes.
        tile: Side of a tile in pixels. An image that is smaller on a side is covered by tiles of
            its short side; the released code has no centroids for it.
        cover_partial: Whether pixels beside the whole tiles get a tile, see ``tile_origins``. The
            released code does not use them.
        cache_dir: Folder of the statistics, made if missing.
        num_workers: Number of processes that read labels; None for one per CPU, at most 16.
        lazy_init: Whether to read nothing before ``full_init``.

    Raises:
        UserError: The pipeline has no transform that loads labels, a label is unreadable or wrong
            (see ``LoadSegMap``), or ``extra`` has other classes.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        extra: Any = None,
        tile: int = 1024,
        cover_partial: bool = False,
        cache_dir: str = 'work_dirs',
        num_workers: int | None = None,
        lazy_init: bool = False,
    ) -> None:
        self.dataset, self.extra = (
            DATASETS.build(data) if isinstance(data, dict) else data for data in (dataset, extra)
        )
        classes = [tuple(data.metainfo['classes']) for data in self._sources]
        if classes[0] != classes[-1]:
            raise UserError(
                f'extra has {len(classes[-1])} classes ({", ".join(classes[-1][:3])}, ...) and the '
                f'data set {len(classes[0])} ({", ".join(classes[0][:3])}, ...): both must be the '
                'same'
            )
        self.tile = tile
        self.cover_partial = cover_partial
        self.cache_dir = cache_dir
        self.num_workers = min(16, os.cpu_count() or 1) if num_workers is None else num_workers
        self._centroids: np.ndarray | None = None
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        return self.dataset.metainfo

    @property
    def num_images(self) -> int:
        """Number N of ordinary items."""
        return len(self.dataset)

    @property
    def num_labels(self) -> int:
        """Number of images, extra images included."""
        return sum(map(len, self._sources))

    @property
    def _sources(self) -> list[Any]:
        return [self.dataset] if self.extra is None else [self.dataset, self.extra]

    def _source(self, image: int) -> tuple[Any, int]:
        """Data set of an image, and the index of the image in it."""
        if image < self.num_images:
            return self.dataset, image
        return self.extra, image - self.num_images

    def full_init(self) -> None:
        """Reads the statistics or makes them; a second call does nothing."""
        if self._centroids is not None:
            return
        for data in self._sources:
            data.full_init()
        message = [self._load_or_build() if is_main_process() else None]
        broadcast_object_list(message)
        self._centroids = message[0]

    @property
    def centroids(self) -> np.ndarray:
        """Rows (image, class, x, y), int32, sorted by class, then by image."""
        self.full_init()
        assert self._centroids is not None
        return self._centroids

    def __len__(self) -> int:
        return self.num_images + len(self.centroids)

    def get_data_info(self, idx: int) -> dict:
        """Annotations of item ``idx`` before its pipeline, with the centre of the crop."""
        if idx < self.num_images:
            return self.dataset.get_data_info(idx)
        image, class_index, x, y = self.centroids[idx - self.num_images].tolist()
        info = self._info(image)
        return {**info, 'crop_center': (x, y), 'crop_class': class_index}

    def _info(self, image: int) -> dict:
        dataset, index = self._source(image)
        return dataset.get_data_info(index)

    def __getitem__(self, idx: int) -> Any:
        if idx < self.num_images:
            return self.dataset[idx]
        image = int(self.centroids[idx - self.num_images, 0])
        return self._owner(image).pipeline(self.get_data_info(idx))

    def _owner(self, image: int) -> Any:
        """Innermost data set that holds an image, inside all wrappers."""
        dataset, image = self._source(image)
        while isinstance(dataset, ConcatDataset | RepeatDataset | ClassBalancedDataset):
            if isinstance(dataset, ConcatDataset):
                number, image = wrapped_index(dataset, image)
                dataset = dataset.datasets[number]
            else:
                image, dataset = wrapped_index(dataset, image), dataset.dataset
        return dataset

    def _label_loader(self, image: int) -> LoadAnnotations:
        pipeline = self._owner(image).pipeline.transforms
        loader = next((t for t in pipeline if isinstance(t, LoadAnnotations)), None)
        if loader is None:
            raise UserError(
                'ClassCentroidDataset needs LoadSegMap or LoadAnnotations in the pipeline, '
                f'which has only {[type(t).__name__ for t in pipeline]}'
            )
        return loader

    def label_centroids(self, image: int) -> np.ndarray:
        """Rows (image, class, x, y) of an image, int32, from its label file."""
        info = self._info(image)
        label = self._label_loader(image)(info)['gt_seg_map']
        tile = min(self.tile, *label.shape)
        cover_partial = self.cover_partial or tile < self.tile
        rows = class_centroids(label, len(self.metainfo['classes']), tile, cover_partial)
        return np.insert(rows, 0, image, axis=1).astype(np.int32)

    def _load_or_build(self) -> np.ndarray:
        path = Path(self.cache_dir) / f'class_centroids_{self._key()}.npz'
        if path.exists():
            with np.load(path) as cache:
                return cache['centroids']
        centroids = self._build()
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f'{path.stem}.{os.getpid()}.npz')
        np.savez_compressed(unfinished, centroids=centroids)
        unfinished.replace(path)  # never a half-written file under the final name
        return centroids

    def _key(self) -> str:
        """Hash of everything that the statistics depend on."""
        digest = hashlib.sha256()
        num_classes = len(self.metainfo['classes'])
        digest.update(repr((CACHE_VERSION, num_classes, self.tile, self.cover_partial)).encode())
        for image in range(self.num_labels):
            info = self._info(image)
            path = info['seg_map_path']
            stat = os.stat(path) if os.path.exists(path) else None  # not on a disk: the path counts
            state = (stat.st_size, stat.st_mtime_ns) if stat else None
            label_map = sorted((info.get('label_map') or {}).items())
            reduce_zero = info.get('reduce_zero_label', False)
            reader = repr(self._label_loader(image))
            digest.update(repr((path, state, label_map, reduce_zero, reader)).encode())
        return digest.hexdigest()[:16]

    def _build(self) -> np.ndarray:
        workers = self.num_workers if self.num_labels > 64 else 0  # few labels: no processes
        loader = DataLoader(
            _LabelCentroids(self),
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            # Weights are initialised later: the global generator must not depend on the cache.
            generator=torch.Generator(),
        )
        rows = list(track(loader, 'Class centroids', total=self.num_labels))
        table = np.concatenate([np.empty((0, 4), np.int32), *rows])
        return table[np.argsort(table[:, 1], kind='stable')]


class _LabelCentroids(Dataset):
    """Data set of the rows of each image, so that the workers of a ``DataLoader`` read labels."""

    def __init__(self, owner: ClassCentroidDataset) -> None:
        self.owner = owner

    def __len__(self) -> int:
        return self.owner.num_labels

    def __getitem__(self, image: int) -> np.ndarray:
        return self.owner.label_centroids(image)


def _unchanged(item: Any) -> Any:
    return item


@DATA_SAMPLERS.register_module()
class ClassUniformSampler(Sampler):
    """Sampler of ordinary images and class items in random order, see ``epoch_counts``.

    The list of an epoch depends on ``seed`` and the epoch only. Every rank makes the same list and
    takes every n-th item, where n is the number of ranks. All epochs have the same length. Training
    loops that count iterations continue with the list of the next epoch.

    Args:
        dataset: ``ClassCentroidDataset``, or a wrapper that has it as ``dataset``.
        pct: Fraction of class items, from 0 to 1.
        seed: Seed, the same on all ranks; None for a seed that the ranks agree on.
        round_up: Whether the first items are repeated at the end, so that every rank has the same
            number of items.
        extra_classes: Classes that extra images are used for; None for all classes.
        extra_epochs: Number of epochs, from the first, in which extra images are used; None for
            all. In later epochs, ordinary images replace the items of a class that only extra
            images have.

    Raises:
        UserError: The data set has no centroids, ``pct`` is outside of 0 to 1, or an extra class
            does not exist.
    """

    def __init__(
        self,
        dataset: Any,
        pct: float = 0.5,
        seed: int | None = None,
        round_up: bool = True,
        *,
        extra_classes: Sequence[int] | None = None,
        extra_epochs: int | None = None,
    ) -> None:
        if not 0 <= pct <= 1:
            raise UserError(f'pct={pct} must be a fraction from 0 to 1')
        data = _centroid_dataset(dataset)
        num_classes = len(data.metainfo['classes'])
        self.num_images = data.num_images
        every_class = range(num_classes)
        extra_classes = every_class if extra_classes is None else extra_classes
        if not set(extra_classes) <= set(every_class):
            raise UserError(
                f'extra_classes={list(extra_classes)}: the data set has the classes 0 to '
                f'{num_classes - 1}'
            )
        ordinary = data.centroids[:, 0] < data.num_images
        self.ordinary_entries = _entries(data, ordinary, num_classes)
        self.entries = _entries(
            data, ordinary | np.isin(data.centroids[:, 1], extra_classes), num_classes
        )
        self.extra_epochs = extra_epochs
        self.counts = epoch_counts(self.num_images, pct, [len(e) for e in self.entries])
        if pct and not self.counts.per_class.any():
            warnings.warn(
                f'{self.num_images} images are too few for {num_classes} classes at pct={pct}: the '
                'epoch has no class items, only ordinary images',
                stacklevel=2,
            )
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.rank, self.world_size = get_dist_info()
        self.padding = -self.counts.epoch_len % self.world_size if round_up else 0

    def epoch_list(self, epoch: int) -> np.ndarray:
        """Items of an epoch on all ranks, in order, int64."""
        rng = np.random.default_rng((self.seed, epoch))
        with_extra = self.extra_epochs is None or epoch < self.extra_epochs
        plain = rng.permutation(self.num_images)
        num_plain, per_class = self.counts.plain, []
        for entries, n in zip(
            self.entries if with_extra else self.ordinary_entries,
            self.counts.per_class.tolist(),
            strict=True,
        ):
            if len(entries):  # np.resize cycles through a list that is too short
                per_class.append(np.resize(rng.permutation(entries), n))
            else:
                num_plain += n
        plain = np.resize(plain, num_plain)
        items = rng.permutation(np.concatenate([plain, *per_class]))
        return np.append(items, np.resize(items, self.padding))

    def _rank_list(self, epoch: int) -> list[int]:
        return self.epoch_list(epoch)[self.rank :: self.world_size].tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self._rank_list(self.epoch))

    def __len__(self) -> int:
        """Number of items of this rank in an epoch."""
        return len(range(self.rank, self.counts.epoch_len + self.padding, self.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Choose the list of the next ``iter``."""
        self.epoch = epoch


def _entries(data: ClassCentroidDataset, chosen: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Items of the centroids of each class that are ``chosen``, bool (M,)."""
    classes = data.centroids[:, 1]
    return [np.flatnonzero(chosen & (classes == c)) + data.num_images for c in range(num_classes)]


@runtime_checkable
class WrapsDataset(Protocol):
    """Wrapper around a data set."""

    dataset: Any


def _centroid_dataset(dataset: Any) -> ClassCentroidDataset:
    inner = dataset
    while not isinstance(inner, ClassCentroidDataset):
        if not isinstance(inner, WrapsDataset):
            raise UserError(
                f'ClassUniformSampler got a {type(dataset).__name__}: wrap the data set in '
                "dict(type='ClassCentroidDataset', dataset=...)"
            )
        inner = inner.dataset
    inner.full_init()
    return inner
