"""Class-uniform sampling with tile centroids.

Zhu, Sapra et al., "Improving Semantic Segmentation via Video Propagation and Label Relaxation",
CVPR 2019, credited there to Peter Kontschieder; used by HMSA (arXiv 2005.10821). Released code:
NVIDIA/semantic-segmentation (BSD-3-Clause).

For every tile of every image the centre of mass of each class in it is kept. In each epoch a share
of the items is drawn equally over the classes, and their crops must hold such a centre; the others
are ordinary images. Differs from the released code: one list an epoch, split over the ranks (there
each rank shuffles its own, and ranks overlap); classes never seen are skipped (KeyError there);
images smaller than a tile count; statistics on disk are used only for the data they were made from;
extra images, which only class items show, do stop after the epoch that is named.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine.dist import broadcast_object_list, get_dist_info, is_main_process, sync_random_seed
from mmseg.registry import DATA_SAMPLERS, DATASETS
from rich.progress import track
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import UserError

CACHE_VERSION = 1  # raise it when the same labels give other rows


def tile_origins(height: int, width: int, tile: int, cover_partial: bool = False) -> np.ndarray:
    """Top-left corners (x0, y0) of the tiles of an image in raster order, int64 (T, 2).

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        tile: Side of a tile in pixels.
        cover_partial: False drops what is left beside whole tiles, as released; True covers it with
            a last tile that is shifted inwards (cut off where the image is smaller than a tile).
    """
    x, y = (_starts(length, tile, cover_partial) for length in (width, height))
    return np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)


def _starts(length: int, tile: int, cover_partial: bool) -> np.ndarray:
    starts = np.arange(length // tile) * tile
    if cover_partial and length % tile:
        starts = np.append(starts, max(length - tile, 0))
    return starts


def class_centroids(
    label: np.ndarray, num_classes: int, tile: int, cover_partial: bool = False
) -> np.ndarray:
    """Centre of mass of every class in every tile, rows (class, x, y), int64 (M, 3).

    Rows are sorted by class, inside a class by tile in raster order. Coordinates are pixels of the
    image, rounded down inside the tile; the centre of a ring lies on another class.

    Args:
        label: Integers (H, W), not negative; values from ``num_classes`` on are ignored.
        num_classes: Number of classes.
        tile: Side of a tile in pixels.
        cover_partial: As in ``tile_origins``.
    """
    rows = [
        _centers(label[y : y + tile, x : x + tile], num_classes) + (0, x, y)
        for x, y in tile_origins(label.shape[0], label.shape[1], tile, cover_partial)
    ]
    table = np.concatenate([np.empty((0, 3), np.int64), *rows])
    return table[np.argsort(table[:, 0], kind='stable')]


def _centers(label: np.ndarray, num_classes: int) -> np.ndarray:
    """Rows (class, x, y) of the classes in one tile.

    Sums over runs of equal values along the rows, of which a label has some per cent of its pixels:
    the run of n pixels from x on adds n, n * y and n * (2x + n - 1) / 2.
    """
    is_start = np.ones(label.shape, bool)
    is_start[:, 1:] = label[:, 1:] != label[:, :-1]
    start = np.flatnonzero(is_start)
    length = np.diff(start, append=label.size)
    y, x = np.divmod(start, label.shape[1])
    value = np.minimum(label.ravel()[start], num_classes)  # one bin for all that is ignored

    def total(weights: np.ndarray) -> np.ndarray:  # exact: integers far below 2**53
        return np.bincount(value, weights, minlength=num_classes + 1)[:num_classes].astype(np.int64)

    pixels = total(length)
    seen = np.flatnonzero(pixels)
    sum_x, sum_y = total(length * (2 * x + length - 1)) // 2, total(length * y)
    return np.stack([seen, sum_x[seen] // pixels[seen], sum_y[seen] // pixels[seen]], axis=1)


class EpochCounts(NamedTuple):
    """What one epoch holds."""

    per_class: np.ndarray  # (K,), items of each class
    plain: int  # ordinary images
    max_repeat: np.ndarray  # (K,), how often one centroid of the class is used at most
    epoch_len: int  # all items


def epoch_counts(num_images: int, pct: float, centroids_per_class: Sequence[int]) -> EpochCounts:
    """Items of one epoch: int(N * pct / K) of each of the K classes, the rest of N ordinary images.

    A class without centroids gives nothing, which makes the epoch shorter.

    Args:
        num_images: N.
        pct: Share of class items, from 0 to 1.
        centroids_per_class: Centroids of each class, (K,).
    """
    available = np.asarray(centroids_per_class, dtype=np.int64)
    k = int(num_images * pct / len(available))
    per_class = np.where(available > 0, k, 0)
    plain = num_images - k * len(available)
    max_repeat = -(-per_class // np.maximum(available, 1))
    return EpochCounts(per_class, plain, max_repeat, plain + int(per_class.sum()))


@DATASETS.register_module()
class ClassCentroidDataset(Dataset):
    """Any data set of MMSeg, followed by one item for every class centroid of its labels.

    Items 0 to N - 1 are those of the data set. Item N + j is the image of row j of ``centroids``,
    and its pipeline finds ``crop_center``, the (x, y) of the centroid in pixels of the image as
    loaded, and ``crop_class``. ``RandomScaleCrop`` cuts around it, ``ClassUniformSampler`` chooses
    the items.

    Labels are read by the data set's own loading transform, once; the statistics are kept in
    ``cache_dir`` under a name that depends on the label files (paths, sizes, times), how they are
    read, and the tiles. The main process makes them, with several workers, and sends them to the
    others, which wait; so every process of a job must build the data set.

    Args:
        dataset: A data set or its config; may be wrapped in ``ConcatDataset`` or ``RepeatDataset``.
        extra: Likewise, images that no ordinary item shows; their centroids follow those of
            ``dataset``, class by class. In HMSA: Cityscapes' coarse images.
        tile: Side of a tile in pixels. An image that is smaller on a side, of which the released
            code makes nothing, is covered by tiles of its short side.
        cover_partial: Whether what is left beside whole tiles gets a tile too, see
            ``tile_origins``;
            released: no.
        cache_dir: Folder of the statistics, made if missing.
        num_workers: Processes that read labels; None for one per CPU, at most 16.
        lazy_init: Whether to wait with reading until ``full_init``.

    Raises:
        TypeError: The pipeline holds no transform that loads labels.
        ValueError: A label is unreadable or wrong (see ``LoadSegMap``), or ``extra`` has other
            classes.
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
        classes = [tuple(data.metainfo['classes']) for data in self._parts]
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
        """N, the number of ordinary items."""
        return len(self.dataset)

    @property
    def num_labels(self) -> int:
        """Of all images, extra ones included."""
        return sum(map(len, self._parts))

    @property
    def _parts(self) -> list[Any]:
        return [self.dataset] if self.extra is None else [self.dataset, self.extra]

    def _part(self, image: int) -> tuple[Any, int]:
        """The data set of an image, and its index there."""
        if image < self.num_images:
            return self.dataset, image
        return self.extra, image - self.num_images

    def full_init(self) -> None:
        """Reads the statistics, or makes them; does nothing the second time."""
        if self._centroids is not None:
            return
        for data in self._parts:
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
        """What the data set knows of item ``idx`` before its pipeline, with the crop's centre."""
        if idx < self.num_images:
            return self.dataset.get_data_info(idx)
        image, class_index, x, y = self.centroids[idx - self.num_images].tolist()
        info = self._info(image)
        return {**info, 'crop_center': (x, y), 'crop_class': class_index}

    def _info(self, image: int) -> dict:
        dataset, index = self._part(image)
        return dataset.get_data_info(index)

    def __getitem__(self, idx: int) -> Any:
        if idx < self.num_images:
            return self.dataset[idx]
        image = int(self.centroids[idx - self.num_images, 0])
        return self._owner(image).pipeline(self.get_data_info(idx))

    def _owner(self, image: int) -> Any:
        """The innermost data set that holds an image, and its pipeline."""
        dataset, image = self._part(image)
        while not hasattr(dataset, 'pipeline'):
            found = dataset._get_ori_dataset_idx(image)
            if isinstance(found, tuple):  # ConcatDataset
                dataset, image = dataset.datasets[found[0]], found[1]
            else:
                dataset, image = dataset.dataset, found
        return dataset

    def _label_loader(self, image: int) -> LoadAnnotations:
        pipeline = self._owner(image).pipeline.transforms
        loader = next((t for t in pipeline if isinstance(t, LoadAnnotations)), None)
        if loader is None:
            raise UserError(
                'ClassCentroidDataset reads labels by the LoadSegMap or LoadAnnotations of the '
                f'pipeline, which has only {[type(t).__name__ for t in pipeline]}'
            )
        return loader

    def label_centroids(self, image: int) -> np.ndarray:
        """Rows (image, class, x, y) of one image, int32, from its label file."""
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
        """Hash of all that the statistics depend on."""
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
            _LabelCentroids(self), batch_size=None, num_workers=workers, collate_fn=_unchanged
        )
        rows = list(track(loader, 'Class centroids', total=self.num_labels))
        table = np.concatenate([np.empty((0, 4), np.int32), *rows])
        return table[np.argsort(table[:, 1], kind='stable')]


class _LabelCentroids(Dataset):
    """The rows of each image as a data set, so that a ``DataLoader`` reads labels in processes."""

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
    """One epoch of ordinary images and class items, see ``epoch_counts``, in random order.

    The list depends on (seed, epoch) alone. Every rank makes the same one and takes its part. Its
    length is the same in every epoch. Loops that count iterations go on with the next epoch's list.

    Args:
        dataset: A ``ClassCentroidDataset``, or a wrapper that has it as ``dataset``.
        pct: Share of class items, from 0 to 1.
        extra_classes: Classes of which extra images are shown; None for all.
        extra_epochs: Extra images are shown in so many epochs only, from the first; None for all.
            Later, ordinary images take the place of the items of a class that only they have.
        seed: Same on all ranks; None for one that the ranks agree on.
        round_up: Whether items from the list's beginning make its length a multiple of the ranks.

    Raises:
        TypeError: The data set knows no centroids.
        ValueError: ``pct`` is outside of 0 to 1, or an extra class is none.
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
            raise UserError(f'pct={pct} must be a share from 0 to 1')
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
        self.entries = _entries(  # of each class, the items of its centroids
            data, ordinary | np.isin(data.centroids[:, 1], extra_classes), num_classes
        )
        self.extra_epochs = extra_epochs
        self.counts = epoch_counts(self.num_images, pct, [len(e) for e in self.entries])
        if pct and not self.counts.per_class.any():
            warnings.warn(
                f'{self.num_images} images are too few for {num_classes} classes at pct={pct}: the '
                'epoch has no class items, only ordinary images.',
                stacklevel=2,
            )
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.rank, self.world_size = get_dist_info()
        self.padding = -self.counts.epoch_len % self.world_size if round_up else 0

    def epoch_list(self, epoch: int) -> np.ndarray:
        """The items of an epoch on all ranks, in order, int64."""
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
        """Items of this rank in one epoch."""
        return len(range(self.rank, self.counts.epoch_len + self.padding, self.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Chooses the list of the next iteration."""
        self.epoch = epoch


def _entries(data: ClassCentroidDataset, chosen: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Of each class, the items of its centroids that are ``chosen``, bool (M,)."""
    classes = data.centroids[:, 1]
    return [np.flatnonzero(chosen & (classes == c)) + data.num_images for c in range(num_classes)]


def _centroid_dataset(dataset: Any) -> ClassCentroidDataset:
    inner = dataset
    while not isinstance(inner, ClassCentroidDataset):
        if not hasattr(inner, 'dataset'):
            raise UserError(
                f'ClassUniformSampler got a {type(dataset).__name__}: wrap the data set in '
                "dict(type='ClassCentroidDataset', dataset=...)"
            )
        inner = inner.dataset
    inner.full_init()
    return inner
