"""Average precision of instances by COCO's protocol, computed by pycocotools."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable

from ..errors import UserError, import_extra
from .segment_masks import NO_PREDICTION, box_of_mask, object_masks, require_things

PURPOSE = 'InstanceAP'
KINDS = {'segm': '', 'bbox': 'box_'}  # COCO's name of a kind, and the prefix of its scores
AREAS = {'': 'all', '_s': 'small', '_m': 'medium', '_l': 'large'}


@METRICS.register_module()
class InstanceAP(BaseMetric):
    """Average precision of masks (``AP``) and boxes (``box_AP``) of the things, in per cent.

    ``AP`` is the mean over IoU thresholds from 0.5 to 0.95 and over classes with an object in the
    labels; ``AP50`` and ``AP75`` are of one threshold, ``AP_s``, ``AP_m`` and ``AP_l`` of objects
    below 32^2, below 96^2 and above 96^2 pixels. Scores of no object are NaN. Crowds count as
    COCO counts them.

    Labels are ``gt_instances``, else the things of ``gt_panoptic_seg``. It needs pycocotools.

    Args:
        kinds: Kinds to score: 'segm' for masks, 'bbox' for boxes.
        max_per_image: Number of predictions of an image that count, those with the highest scores:
            100 in COCO, 255 in ADE20K.
        **kwargs: Arguments of the host's ``BaseMetric``.

    Raises:
        UserError: pycocotools is not installed, a kind is unknown, or ``max_per_image`` is below 1.
            At evaluation: the data set has no things, or a sample has no objects or prediction.
    """

    def __init__(
        self, *, kinds: Sequence[str] = ('segm', 'bbox'), max_per_image: int = 100, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._masks = import_extra('pycocotools.mask', 'pycocotools', PURPOSE)
        if not kinds or not set(kinds) <= KINDS.keys():
            raise UserError(f'kinds={tuple(kinds)} must be one or both of {", ".join(KINDS)}')
        if max_per_image < 1:
            raise UserError(f'max_per_image={max_per_image} must be 1 or more, 100 as in COCO')
        self.kinds = tuple(kinds)
        self.max_per_image = max_per_image

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Adds samples with ``pred_instances``: ``masks``, ``labels``, ``scores``, ``bboxes``."""
        things = require_things(self.dataset_meta, PURPOSE)
        for sample in data_samples:
            pred = sample.get('pred_instances')
            if pred is None:
                raise UserError(NO_PREDICTION.format('instances', PURPOSE))
            masks, segments = object_masks(sample, PURPOSE)
            objects = []
            for mask, item in zip(masks, segments, strict=True):
                run_lengths = self._encode(mask)
                entry = dict(
                    category_id=item['category_id'],
                    iscrowd=int(item['iscrowd']),
                    segmentation=run_lengths,
                    area=item.get('area', int(self._masks.area(run_lengths))),
                    bbox=item.get('bbox') or box_of_mask(mask),
                )
                objects.append(entry)
            size = tuple(pred['masks'].shape[1:])
            self.results.append((objects, self._predictions(pred, things), size))

    def _encode(self, mask: np.ndarray) -> dict[str, Any]:
        """Run lengths of a mask (H, W) with rows and columns exchanged.

        COCO's run lengths go down the columns, and pixels in memory along the rows. The IoU does
        not depend on it.
        """
        return self._masks.encode(np.asfortranarray(mask.T, np.uint8))

    def _predictions(self, pred: Any, things: tuple[int, ...]) -> list[dict[str, Any]]:
        labels, scores, boxes = (pred[key].tolist() for key in ('labels', 'scores', 'bboxes'))
        predictions = []
        masks = pred['masks'].cpu().numpy()
        for label, score, box, mask in zip(labels, scores, boxes, masks, strict=True):
            if label not in things:
                continue
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            run_lengths = self._encode(mask)
            # The area of a prediction, by which COCO omits it or not, depends on the kind.
            area = int(self._masks.area(run_lengths))
            predictions.append(
                dict(
                    category_id=label,
                    score=score,
                    iscrowd=0,
                    segm=dict(segmentation=run_lengths, area=area),
                    bbox=dict(bbox=[x, y, w, h], area=w * h),
                )
            )
        return predictions

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Scores from the objects and predictions of all images."""
        evaluate = import_extra('pycocotools.cocoeval', 'pycocotools', PURPOSE).COCOeval
        things = require_things(self.dataset_meta, PURPOSE)
        metrics, table = {}, PrettyTable()
        table.add_column('Class', [self.dataset_meta['classes'][c] for c in things])
        labels, predictions, sizes = zip(*results, strict=True)
        with redirect_stdout(io.StringIO()):  # pycocotools reports its progress
            truth = _coco(labels, sizes, things)
            for kind in self.kinds:
                chosen = [[{**item, **item[kind]} for item in items] for items in predictions]
                evaluation = evaluate(truth, _coco(chosen, sizes, things), kind)
                evaluation.params.maxDets = [self.max_per_image]
                evaluation.evaluate()
                evaluation.accumulate()
                scores, by_class = _scores(evaluation)
                metrics.update({KINDS[kind] + name: value for name, value in scores.items()})
                table.add_column(f'{KINDS[kind]}AP', by_class)
        print_log('instances of classes:\n' + table.get_string(), MMLogger.get_current_instance())
        return metrics


def _coco(
    entries: Sequence[list[dict]], sizes: Sequence[tuple[int, int]], things: Sequence[int]
) -> Any:
    """Pycocotools' ``COCO`` of the objects of each image."""
    coco = import_extra('pycocotools.coco', 'pycocotools', PURPOSE).COCO()
    annotations = [dict(item, image_id=i) for i, items in enumerate(entries) for item in items]
    for number, item in enumerate(annotations, 1):  # COCO's evaluation takes 0 for no match
        item['id'] = number
    coco.dataset = dict(
        images=[dict(id=i, height=h, width=w) for i, (h, w) in enumerate(sizes)],
        annotations=annotations,
        categories=[dict(id=c) for c in things],
    )
    coco.createIndex()
    return coco


def _scores(evaluation: Any) -> tuple[dict[str, float], list[float]]:
    """Scores in per cent, and the mean of each class."""
    # thresholds of IoU, points of recall, classes, areas, numbers of predictions; -1 without object
    precision = evaluation.eval['precision'][..., 0]
    precision = np.where(precision > -1, 100 * precision, np.nan)
    thresholds = evaluation.params.iouThrs.round(2).tolist()
    areas = evaluation.params.areaRngLbl
    scores = {f'AP{suffix}': precision[..., areas.index(name)] for suffix, name in AREAS.items()}
    for name, threshold in (('AP50', 0.5), ('AP75', 0.75)):
        scores[name] = scores['AP'][thresholds.index(threshold)]
    by_class = [_mean(scores['AP'][..., c]) for c in range(precision.shape[2])]
    return {name: _mean(values) for name, values in scores.items()}, by_class


def _mean(values: np.ndarray) -> float:
    """Mean without NaN, rounded; NaN of nothing else."""
    return round(float(np.nanmean(values)), 2) if not np.isnan(values).all() else float('nan')
