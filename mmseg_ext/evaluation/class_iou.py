"""The host's IoU with a value per class, and a Markdown table of the scores."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor

from ..errors import UserError
from .image_sums import ImageSums


def count_pairs(pred: Tensor, label: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Number of pixels for each pair (label, prediction), (K + 1, K + 1), int64.

    Rows are labels, columns are predictions. The last row and column count values that are no
    class. Pixels with the label ``ignore_index`` are not counted.

    Args:
        pred: Predicted classes, (H, W), integers.
        label: Labels, (H, W), integers.
        num_classes: Number of classes K.
        ignore_index: Label that is not counted.
    """
    rows, columns = num_classes + 2, num_classes + 1
    # Operations on narrow integers are much faster than on int64.
    dtype = torch.int16 if rows * columns <= 2**15 else torch.int32

    def classes_of(values: Tensor) -> Tensor:
        values = values.to(dtype)  # larger values of 16-bit labels become negative
        return values.masked_fill((values < 0) | (values > num_classes), num_classes)

    row = classes_of(label).masked_fill_(label == ignore_index, num_classes + 1)
    pairs = row.mul_(columns).add_(classes_of(pred))
    counts = torch.bincount(pairs.flatten(), minlength=rows * columns)
    return counts.view(rows, columns)[: num_classes + 1]


def areas_of(counts: Tensor) -> list[Tensor]:
    """Intersection, union, predicted and labelled pixels of each class, (K,) each, float32.

    Args:
        counts: Number of pixels for each pair (label, prediction), (K + 1, K + 1).
    """
    pred, label, intersection = counts.sum(0)[:-1], counts.sum(1)[:-1], counts.diagonal()[:-1]
    union = pred + label - intersection
    return [area.float() for area in (intersection, union, pred, label)]


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """The host's ``IoUMetric``, which also returns the IoU of every class.

    The log gets a scalar ``IoU.<class>`` in per cent, which ``save_best`` can name. It is NaN for a
    class that occurs neither in labels nor in predictions.

    One pass over an image replaces the host's three histograms. Only counts are stored, so memory
    does not grow with the number of images. They are integers; the host's float32 sums lose single
    pixels beyond 2^24.

    After an evaluation, ``confusion`` holds the counts of all images: (K, K), int64, labels in
    rows.

    Args:
        unscored: Names of classes that ``mIoU`` omits. Their pixels are not ignored: they count as
            errors of the classes that are predicted there.
        row_bands: Number of horizontal bands of equal height. With 2 or more, the log also gets the
            mIoU of each band, such as ``mIoU.rows_0_25`` for the top quarter of all images. It is
            the mean over the classes that occur in the band.
        **kwargs: Arguments of the host's ``IoUMetric``.

    Raises:
        UserError: ``row_bands`` is below 1. At evaluation: a name in ``unscored`` is no class.
    """

    def __init__(self, *, unscored: Sequence[str] = (), row_bands: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if row_bands < 1:
            raise UserError(f'row_bands={row_bands} must be 1 or more, for example 4 for quarters')
        self.unscored = frozenset(unscored)
        self.row_bands = row_bands
        self.confusion: Tensor | None = None
        self._sums = ImageSums()

    # The host's ``process`` appends its return value to ``results`` for each image.
    def intersect_and_union(self, pred: Tensor, label: Tensor, *args: Any) -> Tensor:
        """Counts of the pairs in each band of an image, (bands, K + 1, K + 1)."""
        height = len(label)
        edges = [height * band // self.row_bands for band in range(self.row_bands + 1)]
        bands = [slice(*rows) for rows in pairwise(edges)]
        return torch.stack([count_pairs(pred[rows], label[rows], *args) for rows in bands])

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Adds the counts of samples with ``pred_sem_seg`` and ``gt_sem_seg``, each (1, H, W)."""
        super().process(data_batch, data_samples)
        for counts in self.results:
            self._sums.add(counts)
        self.results.clear()

    def evaluate(self, size: int) -> dict:
        """Evaluates as the host does; ``size`` is the number of images of all processes."""
        if self.format_only:
            return super().evaluate(size)
        images, counts = self._sums.take(size)
        num_classes = len(self.dataset_meta['classes'])
        shape = self.row_bands, num_classes + 1, num_classes + 1
        empty = torch.zeros(shape, dtype=torch.int64)
        self.results.append(counts.cpu() if images else empty)
        return super().evaluate(get_world_size())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Scores from the counts (bands, K + 1, K + 1) of each process."""
        if self.format_only:
            return super().compute_metrics(results)
        counts = sum(results)
        total = counts.sum(0)
        self.confusion = total[:-1, :-1]
        areas = areas_of(total)
        metrics = super().compute_metrics([areas])
        for name, iou in zip(self.dataset_meta['classes'], areas[0] / areas[1], strict=True):
            metrics[f'IoU.{name}'] = round(100 * iou.item(), 2)
        if self.unscored:
            metrics['mIoU'] = self._mean_iou(areas)
        if self.row_bands > 1:
            edges = [100 * band // self.row_bands for band in range(self.row_bands + 1)]
            for (top, bottom), band in zip(pairwise(edges), counts, strict=True):
                metrics[f'mIoU.rows_{top}_{bottom}'] = self._mean_iou(areas_of(band))
        return metrics

    def _mean_iou(self, areas: Sequence[Tensor]) -> float:
        """Mean of the scored classes that occur, in per cent."""
        return round(100 * (areas[0] / areas[1])[self._scored()].nanmean().item(), 2)

    def _scored(self) -> Tensor:
        classes = self.dataset_meta['classes']
        if unknown := sorted(self.unscored - set(classes)):
            raise UserError(
                f'unscored names {unknown}, but the classes of the data set are '
                f'{", ".join(classes)}: use only these names'
            )
        return torch.tensor([name not in self.unscored for name in classes])


def markdown_table(metrics: dict[str, float]) -> str:
    """Markdown table of scores in per cent, classes first."""
    rows = sorted(metrics.items(), key=lambda item: not item[0].startswith('IoU.'))
    lines = [f'| {name.removeprefix("IoU.")} | {value:.2f} |' for name, value in rows]
    return '\n'.join(['| class or mean | % |', '|---|---|', *lines, ''])
