"""The host's IoU, also as one number per class, and as a table to read."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """The host's ``IoUMetric`` that returns the IoU of every class beside the means.

    ``IoU.<class>`` in per cent, NaN for a class that neither labels nor predictions show: a scalar
    in the log, and a name for ``save_best``.

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

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Scores from the areas (K,) of all images."""
        metrics = super().compute_metrics(results)
        if results and not self.format_only:
            intersection, union, *_ = (sum(areas) for areas in zip(*results, strict=True))
            for name, iou in zip(self.dataset_meta['classes'], intersection / union, strict=True):
                metrics[f'IoU.{name}'] = round(100 * iou.item(), 2)
            if self.unscored:
                mean = (intersection / union)[self._scored()].nanmean().item()
                metrics['mIoU'] = round(100 * mean, 2)
        return metrics

    def _scored(self) -> Tensor:
        classes = self.dataset_meta['classes']
        if unknown := sorted(self.unscored - set(classes)):
            raise ValueError(
                f'unscored names {unknown}, but the classes of the data set are '
                f'{", ".join(classes)}: name some of them'
            )
        return torch.tensor([name not in self.unscored for name in classes])


def markdown_table(metrics: dict[str, float]) -> str:
    """Scores in per cent as a Markdown table, classes first."""
    rows = sorted(metrics.items(), key=lambda item: not item[0].startswith('IoU.'))
    lines = [f'| {name.removeprefix("IoU.")} | {value:.2f} |' for name, value in rows]
    return '\n'.join(['| class or mean | % |', '|---|---|', *lines, ''])
