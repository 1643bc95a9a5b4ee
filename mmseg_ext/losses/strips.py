"""Cross entropy of many classes whose logits are resized to the label strip by strip.

The logits of all classes at the size of the label would need gigabytes: 3.1 GB in float32 for 1001
classes and 12 crops of 256x256, and several times as much for the softmax and the gradients.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

STRIP_VALUES = 2**23  # logits of a strip; its softmax and gradients take a few times as much


def sum_of_terms(
    logits: Tensor, target: Tensor, factors: Tensor, ignore_index: int, align_corners: bool
) -> Tensor:
    """Sum of the cross entropy of all pixels, each times its factor.

    The logits are resized to the label, bilinear. One strip of rows is in memory at a time, and its
    gradient is computed at once, so that nothing is computed again in the backward pass.

    Args:
        logits: Logits, (N, K, h, w), float32 or better.
        target: Labels, (N, H, W), int64.
        factors: Factors of the pixels, (N, H, W); 0 for ignored pixels. They get no gradient.
        ignore_index: Value of ``target`` to ignore.
        align_corners: Whether the outer pixels of logits and label lie on each other.

    Returns:
        A scalar. It is differentiated once.
    """
    return _SumOfTerms.apply(logits, target, factors.detach(), ignore_index, align_corners)


class _SumOfTerms(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        factors: Tensor,
        ignore_index: int,
        align_corners: bool,
    ) -> Tensor:
        learns = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(logits) if learns else None
        total = logits.new_zeros(())
        exact = torch.autocast(logits.device.type, enabled=False)  # of the product in _resize
        for rows, read, weights in _strips(logits, target.shape[1:], align_corners):
            with torch.set_grad_enabled(learns), exact:
                part = logits[:, :, read].detach().requires_grad_(learns)
                strip = _resize(part, weights, target.shape[2], align_corners)
                terms = F.cross_entropy(
                    strip, target[:, rows], reduction='none', ignore_index=ignore_index
                )
                value = (terms * factors[:, rows]).sum()
            if gradient is not None:
                gradient[:, :, read] += torch.autograd.grad(value, part)[0]
            total += value.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        (gradient,) = ctx.saved_tensors
        return grad_output * gradient, None, None, None, None


def _strips(
    logits: Tensor, size: torch.Size, align_corners: bool
) -> Iterator[tuple[slice, slice, Tensor | None]]:
    """Rows of the label, the rows of the logits that they are mixed of, and the weights.

    The weights (rows of the label, rows of the logits) are None where no row is mixed.
    """
    n, classes, height = logits.shape[:3]
    step = max(STRIP_VALUES // (n * classes * size[1]), 1)
    matrix = None
    if tuple(logits.shape[2:]) != tuple(size):
        unit = torch.eye(height, dtype=logits.dtype)[None]  # on the CPU, which the loop reads
        matrix = F.interpolate(unit, size=size[0], mode='linear', align_corners=align_corners)[0].T
    for top in range(0, size[0], step):
        rows = slice(top, min(top + step, size[0]))
        if matrix is None:
            yield rows, rows, None
            continue
        used = matrix[rows].any(0).nonzero()[:, 0].tolist()
        read = slice(used[0], used[-1] + 1)
        yield rows, read, matrix[rows, read].to(logits.device, non_blocking=True)


def _resize(part: Tensor, weights: Tensor | None, width: int, align_corners: bool) -> Tensor:
    """Rows (N, K, r, w) of the logits, mixed by ``weights`` and as wide as the label."""
    if weights is None:
        return part
    wide = F.interpolate(
        part, size=(part.shape[2], width), mode='bilinear', align_corners=align_corners
    )
    return weights @ wide
