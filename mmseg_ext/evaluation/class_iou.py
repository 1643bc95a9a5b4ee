"""The host's IoU, also as one number per class, and as a table to read."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor

from ..errors import UserError
from .image_sums import ImageSums


def count_pairs(pred: Tensor, label: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Number of pixels of each pair of a label and a prediction, (K + 1, K + 1), int64.

    Rows are labels, columns predictions; the last of either is for what is no class. Pixels with
    the label ``ignore_index`` are not counted.

    Args:
        pred: (H, W), integers.
        label: Likewise.
        num_classes: K.
        ignore_index: Label without a class.
    """
    rows, columns = num_classes + 2, num_classes + 1
    # Passes over narrow integers take a fraction of the time of those over int64.
    dtype = torch.int16 if rows * columns <= 2**15 else torch.int32

    def classes_of(values: Tensor) -> Tensor:
        values = values.to(dtype)  # what 16 bits of a label hold beyond it gets negative
        return values.masked_fill((values < 0) | (values > num_classes), num_classes)

    row = classes_of(label).masked_fill_(label == ignore_index, num_classes + 1)
    pairs = row.mul_(columns).add_(classes_of(pred))
    counts = torch.bincount(pairs.flatten(), minlength=rows * columns)
    return counts.view(rows, columns)[: num_classes + 1]


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """The host's ``IoUMetric`` that returns the IoU of every class beside the means.

    ``IoU.<class>`` in per cent, NaN for a class that neither labels nor predictions show: a scalar
    in the log, and a name for ``save_best``.

    One pass over an image counts what the host takes three histograms for, and only the counts are
    kept, whatever the number of images. They are integers, where the host's float32 sums of areas
    lose single pixels beyond 2^24 of them.

    After an evaluation ``confusion`` holds the counts of all images: (K, K), int64, labels in rows.

    Args:
        unscored: Names of classes without part in ``mIoU``. Unlike ignored pixels theirs count
            against the classes that are predicted there.
        **kwargs: As for the host's.

    Raises:
        ValueError: (When evaluated) a name that is no class.
    """

    def __init__(self, *, unscored: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unscored = frozenset(unscored)
        self.confusion: Tensor | None = None
        self._sums = ImageSums()

    # What the host's `process` appends to `results` for an image.
    intersect_and_union = staticmethod(count_pairs)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Counts samples with ``pred_sem_seg`` and ``gt_sem_seg``, each (1, H, W)."""
        super().process(data_batch, data_samples)
        for counts in self.results:
            self._sums.add(counts)
        self.results.clear()

    def evaluate(self, size: int) -> dict:
        """As the host's, for ``size`` images on all processes together."""
        if self.format_only:
            return super().evaluate(size)
        images, counts = self._sums.take(size)
        num_classes = len(self.dataset_meta['classes'])
        empty = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64)
        self.results.append(counts.cpu() if images else empty)
        return super().evaluate(get_world_size())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Scores from the counts (K + 1, K + 1) of each process."""
        if self.format_only:
            return super().compute_metrics(results)
        counts = sum(results)
        self.confusion = counts[:-1, :-1]
        pred, label, intersection = counts.sum(0)[:-1], counts.sum(1)[:-1], counts.diagonal()[:-1]
        union = pred + label - intersection
        areas = [area.float() for area in (intersection, union, pred, label)]
        metrics = super().compute_metrics([areas])
        for name, iou in zip(self.dataset_meta['classes'], areas[0] / areas[1], strict=True):
            metrics[f'IoU.{name}'] = round(100 * iou.item(), 2)
        if self.unscored:
            mean = (areas[0] / areas[1])[self._scored()].nanmean().item()
            metrics['mIoU'] = round(100 * mean, 2)
        return metrics

    def _scored(self) -> Tensor:
        classes = self.dataset_meta['classes']
        if unknown := sorted(self.unscored - set(classes)):
            raise UserError(
                f'unscored names {unknown}, but the classes of the data set are '
                f'{", ".join(classes)}: name some of them'
            )
        return torch.tensor([name not in self.unscored for name in classes])


def markdown_table(metrics: dict[str, float]) -> str:
    """Scores in per cent as a Markdown table, classes first."""
    rows = sorted(metrics.items(), key=lambda item: not item[0].startswith('IoU.'))
    lines = [f'| {name.removeprefix("IoU.")} | {value:.2f} |' for name, value in rows]
    return '\n'.join(['| class or mean | % |', '|---|---|', *lines, ''])
