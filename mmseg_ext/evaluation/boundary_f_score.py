"""F-score of predicted class borders against those of the label.

The measure is that of Gated-SCNN (arXiv 1907.05740, Table 2) and DAVIS (Perazzi et al., CVPR 2016).

The released evaluation of Gated-SCNN has thresholds in fractions of the image's diagonal: 0.0005,
0.001875, 0.00375 and 0.005. For images of 1024x2048 these are 2, 5, 9 and 12 pixels, so its "3 px"
were measured at 2 pixels. Here thresholds are pixels.
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

BITS = 64  # number of classes per step


def radius_in_pixels(threshold: float, size: Sequence[int]) -> float:
    """Radius of a threshold: in pixels from 1 on, else a fraction of the diagonal of (h, w)."""
    return threshold if threshold >= 1 else ceil(threshold * hypot(*size))


def borders(labels: np.ndarray, first: int, valid: np.ndarray) -> np.ndarray:
    """Bits (H, W), uint64, of the classes that have a border at each pixel.

    A pixel is on the border of a class if 1 to 3 of the following pixels have this class: itself
    and its right, lower and lower right neighbours. At the right and lower edge of the image the
    last pixels are repeated, so the edge is no border.

    Args:
        labels: Class indices, (H, W), integers.
        first: Class of the lowest bit.
        valid: Mask of the pixels that have a class, (H, W), bool.
    """
    bit = labels.astype(np.int64) - first
    counted = valid & (bit >= 0) & (bit < BITS)
    classes = np.where(counted, np.uint64(1) << np.where(counted, bit, 0).astype(np.uint64), 0)
    padded = np.pad(classes, ((0, 1), (0, 1)), mode='edge')
    corners = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.bitwise_or.reduce(corners) & ~np.bitwise_and.reduce(corners)


def count_bits(values: np.ndarray) -> np.ndarray:
    """Number of values (64,) that have each bit, of values (M,), uint64."""
    as_bytes = values.astype('<u8').view(np.uint8).reshape(-1, 8)
    return np.unpackbits(as_bytes, axis=1, bitorder='little').sum(0, dtype=np.int64)


def misses(border: np.ndarray, reference: np.ndarray, radii: Sequence[float]) -> np.ndarray:
    """Number of border pixels of each class without a reference pixel of this class in a radius.

    The search goes from near to far neighbours; pixels whose classes are all found are removed.

    Args:
        border: Bits of the border, (H, W), as ``borders`` returns.
        reference: Bits of the reference border, (H, W).
        radii: T radii in pixels, in ascending order.

    Returns:
        Number of pixels, (T, 64).
    """
    reach = int(radii[-1])
    steps = np.arange(-reach, reach + 1)
    squares = (steps[:, None] ** 2 + steps**2).ravel()
    order = np.argsort(squares, kind='stable')
    padded = np.pad(reference, reach)
    moves = (steps[:, None] * padded.shape[1] + steps).ravel()
    y, x = np.nonzero(border)
    positions, left = (y + reach) * padded.shape[1] + x + reach, border[y, x]
    padded = padded.ravel()
    counts, done = [], 0
    for radius in radii:
        end = int((squares <= radius**2).sum())
        for move in moves[order[done:end]]:
            left &= ~padded[positions + move]
            if np.count_nonzero(left) < 0.8 * len(left):
                positions, left = positions[left > 0], left[left > 0]
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
        pred: Predicted classes, (H, W), integers.
        label: Labels, (H, W), integers; pixels with ``ignore_index`` have no class in either map.
        num_classes: Number of classes K.
        radii: T largest Euclidean distances between matching border pixels, in pixels.
        ignore_index: Label without a class.

    Returns:
        F-scores (T, K) in [0, 1], float64; NaN for a class without border in both maps.
    """
    order = np.argsort(radii)
    ascending = [radii[i] for i in order]
    valid = label != ignore_index
    scores = np.empty((len(radii), num_classes))
    for first in range(0, num_classes, BITS):
        pair = [borders(x, first, valid) for x in (pred, label)]
        totals = [count_bits(x[x > 0]) for x in pair]
        precision, recall = (
            1 - misses(border, reference, ascending) / np.maximum(total, 1)
            for border, reference, total in zip(pair, pair[::-1], totals, strict=True)
        )
        with np.errstate(invalid='ignore'):  # 0 / 0 where nothing hits
            f_scores = np.nan_to_num(2 * precision * recall / (precision + recall))
        f_scores = np.where(totals[0] + totals[1] > 0, f_scores, np.nan)
        scores[order, first : first + BITS] = f_scores[:, : num_classes - first]
    return scores


@METRICS.register_module()
class BoundaryFScore(BaseMetric):
    """F-score of class borders in per cent: mean over images, then over classes.

    Precision P is the fraction of the predicted border within a radius of the label's border.
    Recall R is the fraction of the label's border within the radius of the predicted border.
    F = 2 P R / (P + R) for each image and class.

    ``mBF.3``, for a radius of 3 pixels, follows the released code: a class without border in an
    image and its prediction has the score 1 there, which favours rare classes. ``mBF_seen.3`` omits
    such images; it is NaN if no image is left.

    Only sums are stored, so memory does not grow with the number of images.

    Args:
        thresholds: Radii in pixels; a value below 1 is a fraction of the image's diagonal, rounded
            up.
        ignore_index: Label without a class.
        collect_device: Device for results, as in the host's metrics.
        prefix: Prefix of the names, as in the host's metrics.

    Raises:
        UserError: A threshold is not positive.
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
        self._sums = ImageSums()  # scores of each image, and whether they exist, (2, T, K)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Adds the scores of samples with ``pred_sem_seg`` and ``gt_sem_seg``, each (1, H, W)."""
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
        """Evaluates as the host does; ``size`` is the number of images of all processes."""
        self.results.append(self._sums.take(size))
        return super().evaluate(get_world_size())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Means from the number of images and the sums (2, T, K) of each process."""
        images = sum(count for count, _ in results)
        total, count = sum(sums for _, sums in results)
        with_border = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        all_images = (total + images - count) / images
        table = PrettyTable()
        table.add_column('Class', list(self.dataset_meta['classes']))
        metrics = {}
        for name, threshold, row in self._rows(all_images, with_border):
            table.add_column(f'{name}.{threshold:g}', np.round(100 * row, 2).tolist())
            mean = np.nanmean(row) if not np.isnan(row).all() else np.nan
            metrics[f'm{name}.{threshold:g}'] = round(100 * float(mean), 2)
        print_log('borders of classes:\n' + table.get_string(), MMLogger.get_current_instance())
        return metrics

    def _rows(
        self, all_images: np.ndarray, with_border: np.ndarray
    ) -> list[tuple[str, float, np.ndarray]]:
        names = (('BF', all_images), ('BF_seen', with_border))
        return [
            (n, t, row) for n, rows in names for t, row in zip(self.thresholds, rows, strict=True)
        ]
