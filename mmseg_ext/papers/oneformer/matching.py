"""Assignment of queries to targets, and values of masks at points (Sec. 3.2; Mask2Former)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor


class Weights(NamedTuple):
    """Weights of the terms, in the cost and in the loss."""

    ce: float = 2.0
    mask: float = 5.0
    dice: float = 5.0
    contrastive: float = 0.5


WEIGHTS = Weights()  # as released


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values (N, C, P) of maps (N, C, h, w) at points (N, P, 2), (x, y) in [0, 1]."""
    grid = (2 * points - 1)[:, None].to(maps.dtype)
    return F.grid_sample(maps, grid, mode='bilinear', align_corners=False)[:, :, 0]


def sample_masks(masks: Tensor, points: Tensor) -> Tensor:
    """``sample_maps`` of bool masks, which are not converted; in the dtype of the points.

    Args:
        masks: (M, H, W), bool.
        points: (M, P, 2), or (1, P, 2) for all masks, (x, y) in [0, 1].

    Returns:
        (M, P), in [0, 1].
    """
    h, w = masks.shape[1:]
    x, y = (points * points.new_tensor([w, h]) - 0.5).unbind(2)  # in pixels
    left, top = x.floor(), y.floor()
    flat = masks.flatten(1)
    values: Tensor = points.new_zeros(())
    for column, x_weight in ((left, left + 1 - x), (left + 1, x - left)):
        for row, y_weight in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            position = (row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).long()
            corner = flat.gather(1, position.expand(len(flat), -1))
            values = values + corner * (x_weight * y_weight * inside)
    return values


def matching_cost(
    logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor, weights: Weights
) -> Tensor:
    """Cost (Q, M) of every pair of a query and a target of an image; a NaN becomes 100.

    Args:
        logits: Class logits (Q, K + 1).
        mask_logits: Mask logits (Q, P) of the queries at points.
        labels: Class indices (M,) of the targets.
        masks: Values (M, P) of the targets at these points, in [0, 1].
        weights: Weights of the terms.
    """
    class_cost = -logits.softmax(1)[:, labels]
    products = mask_logits @ masks.T
    # softplus(-x) = softplus(x) - x makes one product of the cross entropy's two
    mask_cost = (F.softplus(mask_logits).sum(1, keepdim=True) - products) / masks.shape[1]
    probs = mask_logits.sigmoid()
    overlap = 2 * (probs @ masks.T)
    dice_cost = 1 - (overlap + 1) / (probs.sum(1, keepdim=True) + masks.sum(1) + 1)
    cost = weights.mask * mask_cost + weights.ce * class_cost + weights.dice * dice_cost
    return cost.nan_to_num(100, posinf=100, neginf=-100)


def assign(costs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Matched queries and targets, int64, by cost (Q, M) of each pair; each is matched once.

    All costs go to the host in a single copy.
    """
    flat = torch.cat([cost.flatten() for cost in costs]).cpu().split([c.numel() for c in costs])
    pairs = [linear_sum_assignment(x.view(c.shape)) for x, c in zip(flat, costs, strict=True)]
    lengths = [len(rows) for pair in pairs for rows in pair]
    joined = torch.cat([torch.from_numpy(rows) for pair in pairs for rows in pair])
    parts = iter(joined.to(costs[0].device, non_blocking=True).split(lengths))
    return list(zip(parts, parts, strict=True))
