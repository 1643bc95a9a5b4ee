"""How well predicted borders of classes lie on those of the label, as Gated-SCNN (arXiv 1907.05740,
Table 2) and before it DAVIS (Perazzi et al., CVPR 2016) measure it.

The released evaluation of Gated-SCNN gives its thresholds as fractions of the image's diagonal:
0.0005, 0.001875, 0.00375 and 0.005 of that of 1024x2048 are 2, 5, 9 and 12 pixels, so that its row
of "3 px" was measured at 2. Here they are pixels.
"""

from collections.abc import Sequence
from math import ceil, hypot

import numpy as np
from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable

from ..errors import UserError
from .image_sums import ImageSums

BITS = 64  # classes worked on at a time


def radius_in_pixels(threshold: float, size: Sequence[int]) -> float:
    """A threshold from 1 on is pixels; below it a fraction of the diagonal of (h, w)."""
    return threshold if threshold >= 1 else ceil(threshold * hypot(*size))


def borders(labels: np.ndarray, first: int, valid: np.ndarray) -> np.ndarray:
    """The classes that have a border at each pixel, as bits of uint64 (H, W).

    A border of a class is where just some of a pixel and the right, the lower and the lower right
    one are of the class. Pixels outside of the image are like the last ones in it: its frame is no
    border.

    Args:
        labels: (H, W), integers.
        first: Class of the lowest bit.
        valid: (H, W), bool; other pixels are of no class.
    """
    place = labels.astype(np.int64) - first
    counted = valid & (place >= 0) & (place < BITS)
    classes = np.where(counted, np.uint64(1) << np.where(counted, place, 0).astype(np.uint64), 0)
    padded = np.pad(classes, ((0, 1), (0, 1)), mode='edge')
    corners = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.bitwise_or.reduce(corners) & ~np.bitwise_and.reduce(corners)


def count_bits(values: np.ndarray) -> np.ndarray:
    """Number of values (M,), uint64, that have each bit: (64,)."""
    as_bytes = values.astype('<u8').view(np.uint8).reshape(-1, 8)
    return np.unpackbits(as_bytes, axis=1, bitorder='little').sum(0, dtype=np.int64)


def misses(border: np.ndarray, other: np.ndarray, radii: Sequence[float]) -> np.ndarray:
    """Number of border pixels of each class without a pixel of the other border in a radius.

    The pixels look around them from near to far, those that have found their classes no more.

    Args:
        border: Bits (H, W), as ``borders`` returns.
        other: Likewise.
        radii: T of them, in pixels, from small to large.

    Returns:
        (T, 64).
    """
    reach = int(radii[-1])
    steps = np.arange(-reach, reach + 1)
    squares = (steps[:, None] ** 2 + steps**2).ravel()
    order = np.argsort(squares, kind='stable')
    padded = np.pad(other, reach)
    moves = (steps[:, None] * padded.shape[1] + steps).ravel()
    y, x = np.nonzero(border)
    here, left = (y + reach) * padded.shape[1] + x + reach, border[y, x]
    padded = padded.ravel()
    counts, done = [], 0
    for radius in radii:
        end = int((squares <= radius**2).sum())
        for move in moves[order[done:end]]:
            left &= ~padded[here + move]
            if np.count_nonzero(left) < 0.8 * len(left):
                here, left = here[left > 0], left[left > 0]
        done = end
        counts.append(count_bits(left))
    return np.stack(counts)


def boundary_f_scores(
    pred: np.ndarray,
    label: np.ndarray,
    num_classes: int,
    radii: Sequence[float],
    ignore_index: int = 255,
) -> np.ndarray:
    """F-scores of the borders of each class in one image.

    Args:
        pred: (H, W), integers.
        label: Likewise; ``ignore_index`` is of no class, and the prediction there neither.
        num_classes: K.
        radii: Largest Euclidean distance to the other border, in pixels, T of them.
        ignore_index: Label without a class.

    Returns:
        (T, K) in [0, 1], float64; NaN for a class without a border in both.
    """
    order = np.argsort(radii)
    ascending = [radii[i] for i in order]
    valid = label != ignore_index
    scores = np.empty((len(radii), num_classes))
    for first in range(0, num_classes, BITS):
        pair = [borders(x, first, valid) for x in (pred, label)]
        totals = [count_bits(x[x > 0]) for x in pair]
        precision, recall = (
            1 - misses(own, other, ascending) / np.maximum(total, 1)
            for own, other, total in zip(pair, pair[::-1], totals, strict=True)
        )
        with np.errstate(invalid='ignore'):  # 0 / 0 where nothing hits
            some = np.nan_to_num(2 * precision * recall / (precision + recall))
        some = np.where(totals[0] + totals[1] > 0, some, np.nan)
        scores[order, first : first + BITS] = some[:, : num_classes - first]
    return scores


@METRICS.register_module()
class BoundaryFScore(BaseMetric):
    """Mean over classes of the mean F-score of an image's borders, in per cent.

    Precision is the share of the predicted border near the label's, recall that of the label's near
    the predicted one; F is their harmonic mean for each image and class. As released, a class that
    neither shows in an image counts as 1 there, which makes rare classes look good: ``mBF.3``, for
    3 pixels. ``mBF_seen.3`` leaves such images out, and is NaN if there is no other.

    Sums alone are kept, whatever the number of images.

    Args:
        thresholds: Radii in pixels; below 1 a fraction of the image's diagonal, rounded up.
        ignore_index: Label without a class.
        collect_device: As for the host's metrics.
        prefix: Likewise.

    Raises:
        ValueError: a threshold that is not positive.
    """

    def __init__(
        self,
        *,
        thresholds: Sequence[float] = (3, 5, 9, 12),
        ignore_index: int = 255,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not thresholds or min(thresholds) <= 0:
            raise UserError(f'thresholds={tuple(thresholds)} must be radii, each above 0')
        self.thresholds = tuple(thresholds)
        self.ignore_index = ignore_index
        self._sums = ImageSums()  # each image's scores and how many there are, (2, T, K)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Scores samples with ``pred_sem_seg`` and ``gt_sem_seg``, each (1, H, W)."""
        for sample in data_samples:
            pred, label = (
                sample[key]['data'].squeeze(0).cpu().numpy()
                for key in ('pred_sem_seg', 'gt_sem_seg')
            )
            radii = [radius_in_pixels(t, label.shape) for t in self.thresholds]
            classes = len(self.dataset_meta['classes'])
            scores = boundary_f_scores(pred, label, classes, radii, self.ignore_index)
            self._sums.add(np.stack([np.nan_to_num(scores), ~np.isnan(scores)]))

    def evaluate(self, size: int) -> dict:
        """As the host's, for ``size`` images on all processes together."""
        self.results.append(self._sums.take(size))
        return super().evaluate(get_world_size())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Means from each process's number of images and sums (2, T, K)."""
        images = sum(count for count, _ in results)
        total, count = sum(sums for _, sums in results)
        seen = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        every = (total + images - count) / images
        table = PrettyTable()
        table.add_column('Class', list(self.dataset_meta['classes']))
        metrics = {}
        for name, threshold, row in self._rows(every, seen):
            table.add_column(f'{name}.{threshold:g}', np.round(100 * row, 2).tolist())
            mean = np.nanmean(row) if not np.isnan(row).all() else np.nan
            metrics[f'm{name}.{threshold:g}'] = round(100 * float(mean), 2)
        print_log('borders of classes:\n' + table.get_string(), MMLogger.get_current_instance())
        return metrics

    def _rows(self, every: np.ndarray, seen: np.ndarray) -> list[tuple[str, float, np.ndarray]]:
        names = (('BF', every), ('BF_seen', seen))
        return [
            (n, t, row) for n, rows in names for t, row in zip(self.thresholds, rows, strict=True)
        ]
