"""Edges between the classes of a label, and the loss of predicted edges."""

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

    Pixels outside the image and ignored pixels belong to no class. So the frame of the image is an
    edge of every class that touches it, and ignored pixels are edges where they are near a class.
    The result is that of a distance transform for each class, computed from comparisons of shifted
    labels.

    Args:
        label: Integers (N, H, W). Values outside [0, K) and ``ignore_index`` belong to no class.
        num_classes: Number of classes (K).
        radius: Largest Euclidean distance to a pixel on the other side, in pixels.
        ignore_index: Label of ignored pixels, also where it lies in [0, K).
        skip_class0: Whether pixels of class 0 count as pixels of no class, as released.

    Returns:
        Edges (N, H, W), bool.
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
            first = (..., slice(0, h - dy), slice(left, w - right))
            second = (..., slice(dy, h), slice(right, w - left))
            differ = classes[first] != classes[second]
            edges[first] |= differ
            edges[second] |= differ
    return edges[..., radius : h - radius, radius : w - radius]


def balanced_bce(logits: Tensor, target: Tensor) -> Tensor:
    """Mean of the weighted sigmoid cross entropy: with the fraction s of edges in ``target``, an
    edge has the weight 1 - s, and any other pixel s.
    """
    share = target.to(logits.dtype).mean()
    weight = torch.where(target, 1 - share, share)
    return (weight * F.softplus(torch.where(target, -logits, logits))).mean()


@MODELS.register_module()
class BalancedEdgeLoss(nn.Module):
    """Sigmoid cross entropy in which edges and other pixels of a batch have equal total weight.

    It is 0 for a target with no edges or only edges. It is the host's ``BoundaryLoss`` in float32,
    and never waits for the device.

    Args:
        double_sigmoid: Whether the loss applies the sigmoid twice, as the released code does.
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
        """Logits (N, 1, H, W) and their target (N, 1, H, W), bool, to a scalar, float32."""
        logits = at_least_float32(edge)
        return self.loss_weight * balanced_bce(
            logits.sigmoid() if self.double_sigmoid else logits, target
        )
