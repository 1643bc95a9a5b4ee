"""Sigmoid cross entropy, summed over the classes of a pixel, as in the RMI loss and HMSA."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..layers.precision import at_least_float32
from .pixel_loss import PixelLoss, valid_pixels

# Number of classes per step, so that temporary tensors stay small beside the logits.
CLASS_CHUNK = 4

Pool = Callable[[Tensor], Tensor]


class _PixelTerms(torch.autograd.Function):
    """Cross entropy and pooled probabilities in one pass over chunks of classes.

    With weights w, labels y, softplus s and sigmoid g, they are

        bce = sum over pixels of w (s(-z_y) - s(z_y) + sum over classes of s(z_c))
        pooled = pool(mask g(z) + 1e-6)

    Only the logits and maps of one channel are saved; the backward pass, also by chunks, computes
    the sigmoid again.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, label: Tensor, weight: Tensor, mask: Tensor, pool: Pool | None
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(logits, label, weight, mask)
        ctx.pool = pool
        label_logits = logits.gather(1, label)  # logits of the labelled class, (N, 1, H, W)
        # float64: softplus(label_logits) is subtracted here and added below. The loss of a
        # confident pixel is far smaller than the rounding error of this term in float32.
        total = F.softplus(-label_logits).double() - F.softplus(label_logits)
        pooled = []
        for chunk in logits.split(CLASS_CHUNK, 1):
            total += F.softplus(chunk).sum(1, keepdim=True, dtype=torch.float64)
            if pool is not None:
                pooled.append(pool(chunk.sigmoid().mul_(mask).add_(1e-6)))
        bce = (total * weight).sum().to(logits.dtype)
        return bce, torch.cat(pooled, 1) if pooled else None

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_bce: Tensor, grad_pooled: Tensor | None
    ) -> tuple[Tensor, None, None, None, None]:
        logits, label, weight, mask = ctx.saved_tensors
        weight = weight * grad_bce
        grad = torch.empty_like(logits)
        for start in range(0, logits.shape[1], CLASS_CHUNK):
            classes = slice(start, start + CLASS_CHUNK)
            probs, out = logits[:, classes].sigmoid(), grad[:, classes]
            torch.mul(probs, weight, out=out)
            if grad_pooled is not None:
                with torch.enable_grad():
                    pooled = ctx.pool(probs.mul_(mask).requires_grad_())
                (slope,) = torch.autograd.grad(pooled, probs, grad_pooled[:, classes])
                probs = probs.detach()
                slope.addcmul_(slope, probs, value=-1)
                out.addcmul_(slope, probs)  # slope * (1 - probs) * probs; 0 where the mask is 0
        return grad.scatter_add_(1, label, -weight), None, None, None, None


def pixel_terms(
    logits: Tensor,
    label: Tensor,
    valid: Tensor,
    *,
    weight: Tensor | None = None,
    pool: Pool | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The loss of ``pixel_sum_bce``, and the pooled probabilities.

    Args:
        logits: Logits, (N, K, H, W), any float type; computed in float32 or better.
        label: Labels, (N, H, W), integers.
        valid: Mask of the pixels that count, (N, H, W), bool; probabilities of others are 0.
        weight: Factors of the pixels' cross entropies, (N, H, W).
        pool: Differentiable function from (N, any, H, W) to (N, any, h, w); None omits pooling.

    Returns:
        The loss, a scalar, and the pooled probabilities (N, K, h, w) or None.
    """
    logits = at_least_float32(logits)
    mask = valid.to(logits.dtype)
    factor = mask / (valid.sum() + 1)
    if weight is not None:
        factor = factor * weight
    target = torch.where(valid, label, 0).long()
    return _PixelTerms.apply(logits, target[:, None], factor[:, None], mask[:, None], pool)


def pixel_sum_bce(
    logits: Tensor, label: Tensor, *, weight: Tensor | None = None, ignore_index: int = 255
) -> Tensor:
    """Sum of the sigmoid cross entropies of all valid pixels and classes, divided by V + 1.

    V is the number of valid pixels. The value is about K times the mean over elements, and exactly
    0 without a valid pixel. No one-hot labels are made.

    Args:
        logits: Logits, (N, K, H, W), any float type; computed in float32 or better.
        label: Labels, (N, H, W), integers; ``ignore_index`` and values outside [0, K) are ignored.
        weight: Factors of the pixels' losses, (N, H, W); they do not change the divisor.
        ignore_index: Label to ignore.

    Returns:
        A scalar, float32 or better.

    Raises:
        UserError: Logits and label differ in size.
    """
    valid = valid_pixels(logits, label, ignore_index)
    return pixel_terms(logits, label, valid, weight=weight)[0]


@MODELS.register_module()
class PixelSumBCELoss(PixelLoss):
    """The cross entropy part of ``RMILoss``, for ``loss_decode`` of any head.

    It sums over classes and counts valid pixels only. The host's
    ``CrossEntropyLoss(use_sigmoid=True)`` is a mean over all elements.

    Args:
        loss_weight: Factor of the loss.
        loss_name: Key in the log; it has to contain "loss", or the loss is not trained.
    """

    def __init__(self, *, loss_weight: float = 1.0, loss_name: str = 'loss_bce') -> None:
        super().__init__(loss_weight, loss_name)

    def value(
        self, logits: Tensor, label: Tensor, valid: Tensor, weight: Tensor | None, **kwargs: Any
    ) -> Tensor:
        return pixel_terms(logits, label, valid, weight=weight)[0]
