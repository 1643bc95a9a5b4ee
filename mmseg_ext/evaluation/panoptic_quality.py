"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", CVPR 2019), counted by hotcoco.

hotcoco counts as COCO's panopticapi does, which needs numpy 1. torchmetrics does not: it has no
crowds, and pixels without a prediction are no error in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable

from ..errors import import_extra
from .image_sums import ImageSums
from .segment_masks import map_of_segments

PURPOSE = 'PanopticQuality'


def count_matches(
    pred: tuple[np.ndarray, Sequence[Mapping[str, Any]]],
    label: tuple[np.ndarray, Sequence[Mapping[str, Any]]],
    num_classes: int,
) -> np.ndarray:
    """Matched and other segments of one image, by class.

    A predicted and a labelled segment of one class match if their IoU is above 0.5. As in COCO, the
    union omits pixels without a label. A predicted segment without match is not counted if more
    than half of it has no label or lies in a crowd of its class. Crowds are never matched.

    Args:
        pred: Ids (H, W), integers, of the predicted segments, and the segments as dicts ``id`` and
            ``category_id``. Pixels with other ids have no segment.
        label: The same of the label; its segments also have ``iscrowd``.
        num_classes: Number of classes K.

    Returns:
        Sum of the IoU of matches, number of matches, of other predictions and of other labels,
        float64 (K, 4).

    Raises:
        UserError: hotcoco is not installed.
    """
    hotcoco = import_extra('hotcoco.panoptic', 'hotcoco', PURPOSE)
    evaluation = hotcoco.PanopticEval(_coco(label, num_classes), _coco(pred, num_classes))
    evaluation.evaluate()
    counts = evaluation.results()['per_class']
    names = ('iou', 'tp', 'fp', 'fn')
    return np.array([[counts[c][name] for name in names] for c in range(num_classes)], float)


def _coco(image: tuple[np.ndarray, Sequence[Mapping[str, Any]]], num_classes: int) -> dict:
    """Segments of one image, with rows and columns exchanged, in COCO's form.

    COCO's run lengths go down the columns, and pixels in memory along the rows. The counts of an
    image do not depend on it.
    """
    ids, segments = image
    pixels = ids.ravel()
    starts = np.append(0, np.flatnonzero(pixels[1:] != pixels[:-1]) + 1)
    lengths = np.diff(starts, append=pixels.size)
    values = pixels[starts]
    size = list(ids.shape[::-1])
    annotations = []
    for number, item in enumerate(segments, 1):
        runs = values == item['id']
        if runs.any():
            counts = _run_lengths(starts[runs], lengths[runs], pixels.size)
            annotations.append(
                dict(
                    id=number,
                    image_id=1,
                    category_id=item['category_id'],
                    iscrowd=int(item.get('iscrowd', False)),
                    segmentation=dict(size=size, counts=counts),
                )
            )
    return dict(
        images=[dict(id=1, height=size[0], width=size[1])],
        annotations=annotations,
        categories=[dict(id=c, name=str(c), isthing=0) for c in range(num_classes)],
    )


def _run_lengths(starts: np.ndarray, lengths: np.ndarray, size: int) -> list[int]:
    """COCO's run lengths, of zeros and ones in turn, of runs of ones in ``size`` pixels."""
    ends = starts + lengths
    gaps = starts - np.append(0, ends[:-1])
    return [*np.stack([gaps, lengths], 1).ravel().tolist(), size - int(ends[-1])]


def qualities(counts: np.ndarray) -> np.ndarray:
    """PQ, SQ and RQ of each class in [0, 1], float64 (K, 3); NaN without any segment.

    Args:
        counts: Sums of ``count_matches`` over images, (K, 4).
    """
    quality = import_extra('hotcoco.metrics', 'hotcoco', PURPOSE).panoptic_quality
    rows = [quality(iou, *map(int, numbers)) for iou, *numbers in counts.tolist()]
    values = np.array(rows, float).reshape(-1, 3)
    values[counts[:, 1:].sum(1) == 0] = np.nan
    return values


@METRICS.register_module()
class PanopticQuality(BaseMetric):
    """Panoptic, segmentation and recognition quality in per cent, means over classes.

    ``PQ``, ``SQ`` and ``RQ`` are of all classes with a segment in labels or predictions, ``PQ_th``
    and so on of the things, ``PQ_st`` and so on of the stuff. They are NaN without such a class.

    Only sums are stored, so memory does not grow with the number of images. It needs hotcoco.

    Args:
        **kwargs: Arguments of the host's ``BaseMetric``.

    Raises:
        UserError: hotcoco is not installed. At evaluation: the label or the prediction of a sample
            has no segments.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        import_extra('hotcoco.panoptic', 'hotcoco', PURPOSE)
        self._sums = ImageSums()

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Adds samples with ``pred_panoptic_seg`` and ``gt_panoptic_seg``, both (1, H, W)."""
        num_classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            pred, label = (map_of_segments(sample, key, PURPOSE) for key in ('pred', 'gt'))
            self._sums.add(count_matches(pred, label, num_classes))

    def evaluate(self, size: int) -> dict:
        """Evaluates as the host does; ``size`` is the number of images of all processes."""
        self.results.append(self._sums.take(size))
        return super().evaluate(get_world_size())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Means from the number of images and the sums (K, 4) of each process."""
        classes = self.dataset_meta['classes']
        values = 100 * qualities(np.zeros((len(classes), 4)) + sum(sums for _, sums in results))
        is_thing = np.isin(np.arange(len(classes)), self.dataset_meta.get('thing_classes') or ())
        metrics = {}
        for suffix, chosen in (('', is_thing | True), ('_th', is_thing), ('_st', ~is_thing)):
            scored = values[chosen & ~np.isnan(values[:, 0])]
            means = scored.mean(0) if len(scored) else [np.nan] * 3
            for name, mean in zip(('PQ', 'SQ', 'RQ'), means, strict=True):
                metrics[name + suffix] = round(float(mean), 2)
        table = PrettyTable()
        table.add_column('Class', list(classes))
        for name, column in zip(('PQ', 'SQ', 'RQ'), values.T, strict=True):
            table.add_column(name, column.round(2).tolist())
        print_log('segments of classes:\n' + table.get_string(), MMLogger.get_current_instance())
        return metrics
