"""Segments and objects of samples as the metrics need them, in the names of predictions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UserError

NO_PREDICTION = (
    'the model predicts no {}: test a model of instance or panoptic segmentation, with such a '
    'task, or remove {} from the evaluator'
)


def require_things(meta: Mapping[str, Any], metric: str) -> tuple[int, ...]:
    """Class indices of the things of a data set.

    Raises:
        UserError: The data set has semantic labels only.
    """
    things = tuple(meta.get('thing_classes') or ())
    if not things:
        raise UserError(
            f'{metric} needs a data set with things, but this one has semantic labels only: '
            f'remove {metric} from the evaluator or use panoptic or instance labels'
        )
    return things


def map_of_segments(
    sample: Mapping[str, Any], key: str, metric: str
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Ids (H, W), int, of the label (``gt``) or of the prediction (``pred``), and the segments.

    Raises:
        UserError: The sample has none.
    """
    field = sample.get(f'{key}_panoptic_seg')
    if field is None:
        raise UserError(
            NO_PREDICTION.format('segments', metric)
            if key == 'pred'
            else f'{metric} needs segments of the label, but the pipeline loads none: use '
            'LoadPanoptic and PackPanopticInputs with a data set of panoptic labels'
        )
    segments = sample['segments_info'] if key == 'gt' else field['segments_info']
    return field['panoptic_seg'][0].cpu().numpy(), segments


def object_masks(
    sample: Mapping[str, Any], metric: str
) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """Masks (H, W), bool, of the objects of a label, and their segments.

    The segments of objects from a json of COCO also have its ``area`` and ``bbox``.

    Raises:
        UserError: The sample has no objects.
    """
    instances = sample.get('gt_instances')
    if instances is None:
        ids, segments = map_of_segments(sample, 'gt', metric)
        things = [item for item in segments if item['isthing']]
        return [ids == item['id'] for item in things], things
    labels, crowds = instances['labels'].tolist(), instances['iscrowd'].tolist()
    described = instances.get('coco', [{}] * len(labels))
    segments = [
        dict(category_id=label, iscrowd=crowd, **more)
        for label, crowd, more in zip(labels, crowds, described, strict=True)
    ]
    return list(instances['masks'].cpu().numpy()), segments


def box_of_mask(mask: np.ndarray) -> list[int]:
    """Box (x, y, width, height) in pixels around a mask (H, W); zeros around an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return [0, 0, 0, 0]
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
