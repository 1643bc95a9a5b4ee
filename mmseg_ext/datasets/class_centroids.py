"""Centroids of the classes in the tiles of a label, and the number of items of an epoch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def tile_origins(height: int, width: int, tile: int, cover_partial: bool = False) -> np.ndarray:
    """Top-left corners (x0, y0) of the tiles of an image in raster order, int64 (T, 2).

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        tile: Side of a tile in pixels.
        cover_partial: Whether a last tile, moved inwards, covers the pixels beside the whole tiles.
            It is smaller if the image is smaller than a tile. The released code drops these pixels.
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

    Rows are sorted by class, and for the same class by tile in raster order. Coordinates are pixels
    of the image, rounded down inside the tile. The centre of a ring lies on another class.

    Args:
        label: Integers (H, W), not negative; values from ``num_classes`` on are ignored.
        num_classes: Number of classes.
        tile: Side of a tile in pixels.
        cover_partial: Whether pixels beside the whole tiles count, see ``tile_origins``.
    """
    rows = [
        _centers(label[y : y + tile, x : x + tile], num_classes) + (0, x, y)
        for x, y in tile_origins(label.shape[0], label.shape[1], tile, cover_partial)
    ]
    table = np.concatenate([np.empty((0, 3), np.int64), *rows])
    return table[np.argsort(table[:, 0], kind='stable')]


def _centers(label: np.ndarray, num_classes: int) -> np.ndarray:
    """Rows (class, x, y) of the classes in a tile.

    The sums are over runs of equal values in a row, because a label has far fewer runs than pixels.
    A run of n pixels that starts at x adds n, n * y and n * (2x + n - 1) / 2.
    """
    is_start = np.ones(label.shape, bool)
    is_start[:, 1:] = label[:, 1:] != label[:, :-1]
    start = np.flatnonzero(is_start)
    length = np.diff(start, append=label.size)
    y, x = np.divmod(start, label.shape[1])
    value = np.minimum(label.ravel()[start], num_classes)  # one bin for all ignored values

    def total(weights: np.ndarray) -> np.ndarray:  # exact: integers far below 2**53
        return np.bincount(value, weights, minlength=num_classes + 1)[:num_classes].astype(np.int64)

    pixels = total(length)
    present = np.flatnonzero(pixels)
    sum_x, sum_y = total(length * (2 * x + length - 1)) // 2, total(length * y)
    count = pixels[present]
    return np.stack([present, sum_x[present] // count, sum_y[present] // count], axis=1)


class EpochCounts(NamedTuple):
    """Number of items of an epoch."""

    per_class: np.ndarray  # (K,), class items of each class
    plain: int  # ordinary images
    max_repeat: np.ndarray  # (K,), largest number of uses of a centroid of each class
    epoch_len: int  # all items


def epoch_counts(num_images: int, pct: float, centroids_per_class: Sequence[int]) -> EpochCounts:
    """Counts for an epoch of N items: int(N * pct / K) of each of K classes, then ordinary images.

    A class without centroids has no items, which makes the epoch shorter.

    Args:
        num_images: Number N of images.
        pct: Fraction of class items, from 0 to 1.
        centroids_per_class: Number of centroids of each class, (K,).
    """
    available = np.asarray(centroids_per_class, dtype=np.int64)
    k = int(num_images * pct / len(available))
    per_class = np.where(available > 0, k, 0)
    plain = num_images - k * len(available)
    max_repeat = -(-per_class // np.maximum(available, 1))
    return EpochCounts(per_class, plain, max_repeat, plain + int(per_class.sum()))
