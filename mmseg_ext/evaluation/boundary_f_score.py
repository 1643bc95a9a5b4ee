"""How well predicted borders of classes lie on those of the label, as Gated-SCNN (arXiv 1907.05740,
Table 2) and before it DAVIS (Perazzi et al., CVPR 2016) measure it.

The released evaluation of Gated-SCNN gives its thresholds as fractions of the image's diagonal:
0.0005, 0.001875, 0.00375 and 0.005 of that of 1024x2048 are 2, 5, 9 and 12 pixels, so that its row
of "3 px" was measured at 2. Here they are pixels.
"""

from collections.abc import Sequence
from math import ceil, hypot
from typing import Any

import cv2
import numpy as np
from mmengine.dist import get_dist_info
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable


def radius_in_pixels(threshold: float, size: Sequence[int]) -> float:
    """A threshold from 1 on is pixels; below it a fraction of the diagonal of (h, w)."""
    return threshold if threshold >= 1 else ceil(threshold * hypot(*size))


def borders(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the right, the lower or the lower right one, bool (H, W).

    Those outside of the image are like the last ones in it: its frame is no border.
    """
    h, w = mask.shape
    padded = np.pad(mask, ((0, 1), (0, 1)), mode='edge')
    others = padded[:h, 1:], padded[1:, :w], padded[1:, 1:]
    return (mask != others[0]) | (mask != others[1]) | (mask != others[2])


def box_around(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns that hold all of a mask and one pixel more; None if it is empty."""
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    return (slice(max(y - 1, 0), y + h + 1), slice(max(x - 1, 0), x + w + 1)) if w else None


def hits(border: np.ndarray, other: np.ndarray, radii: Sequence[float]) -> np.ndarray:
    """Share of the pixels of ``border`` with one of ``other`` within each of the radii, (T,).

    1 where ``border`` is empty, 0 where only ``other`` is.
    """
    if not border.any():
        return np.ones(len(radii))
    if not other.any():
        return np.zeros(len(radii))
    distance = cv2.distanceTransform((~other).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[
        border
    ]
    return np.array([(distance <= radius).mean() for radius in radii])


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
    scores = np.full((len(radii), num_classes), np.nan)
    void = label == ignore_index
    for i in range(num_classes):
        masks = (pred == i) & ~void, (label == i) & ~void
        box = box_around(masks[0] | masks[1])
        if box is None:
            continue
        found, wanted = (borders(mask[box]) for mask in masks)
        if found.any() or wanted.any():
            precision, recall = hits(found, wanted, radii), hits(wanted, found, radii)
            total = precision + recall
            scores[:, i] = np.where(total > 0, 2 * precision * recall / np.maximum(total, 1e-9), 0)
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
            raise ValueError(f'thresholds={tuple(thresholds)} must be radii, each above 0')
        self.thresholds = tuple(thresholds)
        self.ignore_index = ignore_index
        self._reset()

    def _reset(self) -> None:
        self._images = 0
        self._total: Any = 0  # of all images but the last: scores and how many there are, (2, T, K)
        self._last: Any = 0

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
            self._images += 1
            self._total = self._total + self._last
            self._last = np.stack([np.nan_to_num(scores), ~np.isnan(scores)])

    def evaluate(self, size: int) -> dict:
        """As the host's, for ``size`` images on all processes together.

        The sampler shows some image again to give each process as many: the last one of a process.
        """
        rank, world_size = get_dist_info()
        own = len(range(rank, size, world_size))
        if self._images > own:
            self._images, self._last = own, 0
        if self._images:
            self.results.append((self._images, self._total + self._last))
        else:  # more processes than images
            self.results.append((0, 0))
        self._reset()
        return super().evaluate(world_size)

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
