"""Edges between the classes of a label, and the loss of predicted ones."""

from math import isqrt

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...layers.precision import at_least_float32


def class_edges(
    label: Tensor,
    num_classes: int,
    *,
    radius: int = 2,
    ignore_index: int = 255,
    skip_class0: bool = False,
) -> Tensor:
    """Pixels within ``radius`` of the border of a class, on both of its sides.

    What lies outside the image belongs to no class, so that the frame is an edge of every class
    that touches it; ignored pixels belong to none either, and are edges beside a class. The result
    is that of a distance transform of every class, from comparisons of shifted labels.

    Args:
        label: (N, H, W), integers; outside [0, K) and ``ignore_index`` belongs to no class.
        num_classes: K.
        radius: Largest Euclidean distance to a pixel on the other side, in pixels.
        ignore_index: A label in [0, K) that belongs to no class as well.
        skip_class0: Class 0 belongs to no class, as released.

    Returns:
        (N, H, W), bool.
    """
    counted = (label >= int(skip_class0)) & (label < num_classes) & (label != ignore_index)
    small = torch.uint8 if num_classes < 256 else torch.int32
    classes = torch.where(counted, label, num_classes).to(small)
    classes = F.pad(classes, (radius,) * 4, value=num_classes)
    edges = torch.zeros_like(classes, dtype=torch.bool)
    h, w = classes.shape[1:]
    for dy in range(radius + 1):
        reach = isqrt(radius**2 - dy**2)
        for dx in range(-reach if dy else 1, reach + 1):  # each pair of pixels once
            left, right = max(-dx, 0), max(dx, 0)
            here = (..., slice(0, h - dy), slice(left, w - right))
            there = (..., slice(dy, h), slice(right, w - left))
            differ = classes[here] != classes[there]
            edges[here] |= differ
            edges[there] |= differ
    return edges[..., radius : h - radius, radius : w - radius]


def balanced_bce(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over all pixels, an edge weighed by the share of the others and these by its share."""
    share = target.to(logits.dtype).mean()
    weight = torch.where(target, 1 - share, share)
    return (weight * F.softplus(torch.where(target, -logits, logits))).mean()


@MODELS.register_module()
class BalancedEdgeLoss(nn.Module):
    """Sigmoid cross entropy in which edges and other pixels of a batch count alike.

    Without an edge, or of edges alone, it is 0. It is the host's ``BoundaryLoss`` without waiting
    for the device, in float32.

    Args:
        double_sigmoid: Takes the sigmoid of what already is one, as the released code does.
        loss_weight: Factor of the loss (20 in the paper).
        loss_name: Key in the log; has to contain "loss" to be trained.
    """

    def __init__(
        self,
        *,
        double_sigmoid: bool = False,
        loss_weight: float = 20.0,
        loss_name: str = 'loss_edge',
    ) -> None:
        super().__init__()
        self.double_sigmoid = double_sigmoid
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, edge: Tensor, target: Tensor) -> Tensor:
        """Logits (N, 1, H, W) and their target, of the same shape, bool, to a scalar, float32."""
        logits = at_least_float32(edge)
        return self.loss_weight * balanced_bce(
            logits.sigmoid() if self.double_sigmoid else logits, target
        )
