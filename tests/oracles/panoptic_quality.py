"""Panoptic quality as COCO defines it, pair by pair."""

from collections.abc import Sequence

import numpy as np


def count_matches(
    pred: tuple[np.ndarray, Sequence[dict]],
    label: tuple[np.ndarray, Sequence[dict]],
    num_classes: int,
) -> np.ndarray:
    """Sum of IoU, matches, other predictions and other labels of each class, (K, 4)."""
    (pred_ids, preds), (label_ids, labels) = pred, label
    void = ~np.isin(label_ids, [item['id'] for item in labels])
    counts = np.zeros((num_classes, 4))
    matched: set[tuple[str, int]] = set()
    for truth in labels:
        for found in preds:
            if truth['iscrowd'] or truth['category_id'] != found['category_id']:
                continue
            a, b = label_ids == truth['id'], (pred_ids == found['id']) & ~void
            iou = (a & b).sum() / max((a | b).sum(), 1)
            if iou > 0.5:
                counts[truth['category_id']] += (iou, 1, 0, 0)
                matched |= {('label', truth['id']), ('pred', found['id'])}
    for truth in labels:
        if ('label', truth['id']) not in matched and not truth['iscrowd']:
            counts[truth['category_id'], 3] += 1
    for found in preds:
        if ('pred', found['id']) in matched:
            continue
        crowds = [
            item['id']
            for item in labels
            if item['iscrowd'] and item['category_id'] == found['category_id']
        ]
        mask = pred_ids == found['id']
        uncounted = mask & (void | np.isin(label_ids, crowds))
        if uncounted.sum() <= 0.5 * mask.sum():
            counts[found['category_id'], 2] += 1
    return counts
