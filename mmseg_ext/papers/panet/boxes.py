"""Boxes (x1, y1, x2, y2): overlap, deltas, suppression.

A box ends behind its last pixel. In the released code it ends at its last pixel and has the width
x2 - x1 + 1, so all widths, overlaps and deltas are equal to the released ones; ``rois_of`` gives
RoIAlign the released numbers.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MAX_GROWTH = math.log(1000 / 16)  # of the logarithm of a size, so that it stays finite
Window = tuple[float, float, float, float]  # the image without padding in its input


def areas(boxes: Tensor) -> Tensor:
    """Areas (...) of boxes (..., 4); 0 where a box ends before it starts."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def intersections(boxes: Tensor, references: Tensor) -> Tensor:
    """Areas (M, N) that boxes (M, 4) have in common with ``references`` (N, 4)."""
    low = torch.maximum(boxes[:, None, :2], references[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], references[None, :, 2:])
    return (high - low).clamp(min=0).prod(-1)


def box_iou(boxes: Tensor, references: Tensor) -> Tensor:
    """Intersections over unions (M, N) of boxes (M, 4) and ``references`` (N, 4); 0 for no area."""
    common = intersections(boxes, references)
    union = areas(boxes)[:, None] + areas(references) - common
    return common / union.clamp(min=1e-9)


def encode(boxes: Tensor, targets: Tensor, weights: Sequence[float]) -> Tensor:
    """Deltas (M, 4) from ``boxes`` to ``targets`` of positive area, times ``weights``."""
    size, target_size = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
    shift = (targets[:, :2] + target_size / 2 - boxes[:, :2] - size / 2) / size
    return torch.cat([shift, (target_size / size).log()], 1) * boxes.new_tensor(weights)


def decode(boxes: Tensor, deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """Boxes (..., 4) that ``deltas`` (..., 4) make of ``boxes`` (..., 4)."""
    deltas = deltas / boxes.new_tensor(weights)
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + size / 2 + deltas[..., :2] * size
    half = size * deltas[..., 2:].clamp(max=MAX_GROWTH).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def clip(boxes: Tensor, window: Window) -> Tensor:
    """Boxes (..., 4) inside of ``window``; an outside box becomes one without area at its edge."""
    low, high = boxes.new_tensor(window).view(2, 2).unbind()
    ends = boxes.unflatten(-1, (2, 2))
    return torch.minimum(torch.maximum(ends, low), high).flatten(-2)


def rois_of(boxes: Sequence[Tensor]) -> Tensor:
    """Regions (M, 5) of ``roi_align`` for the boxes (M_i, 4) of each image.

    A region ends at the last pixel of its box, as released.
    """
    rois = [
        torch.cat([image.new_full((len(image), 1), i), image[:, :2], image[:, 2:] - 1], 1)
        for i, image in enumerate(boxes)
    ]
    return torch.cat(rois)


def nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Numbers of the boxes that non-maximum suppression keeps, from the highest score down.

    Args:
        boxes: (M, 4).
        scores: (M,).
        groups: (M,), integers: a box suppresses boxes of its group only.
        threshold: IoU above which the box with the lower score is suppressed.
    """
    survivors = [groups.new_zeros(0)]
    for group in groups.unique():
        members = (groups == group).nonzero()[:, 0]
        order = members[scores[members].argsort(descending=True, stable=True)]
        survivors.append(order[_survivors(boxes[order], threshold)])
    numbers = torch.cat(survivors)
    return numbers[scores[numbers].argsort(descending=True, stable=True)]


def _survivors(boxes: Tensor, threshold: float) -> Tensor:
    """Numbers of the boxes (M, 4), M > 0, that no kept box before them suppresses."""
    suppresses = (box_iou(boxes, boxes) > threshold).cpu().numpy()
    is_suppressed = np.zeros(len(boxes), bool)
    survivors = []
    for i in range(len(boxes)):
        if not is_suppressed[i]:
            survivors.append(i)
            is_suppressed |= suppresses[i]
    return torch.tensor(survivors, device=boxes.device)
