"""Sigmoid cross entropy summed over the classes of a pixel, as the RMI loss and HMSA use it."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..layers.precision import at_least_float32
from .pixel_loss import PixelLoss, valid_pixels

# Classes worked on at a time: temporaries stay small beside the logits.
CLASS_CHUNK = 4

Pool = Callable[[Tensor], Tensor]


class _PixelTerms(torch.autograd.Function):
    """One pass over the logits for both terms and one for their gradient, by chunks of classes.

    Only the logits and maps of one channel are kept; backward takes the sigmoid again.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, label: Tensor, weight: Tensor, mask: Tensor, pool: Pool | None
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(logits, label, weight, mask)
        ctx.pool = pool
        own = logits.gather(1, label)  # (N, 1, H, W), of the labelled class
        # In float64 because the labelled class, summed below, is taken out again here, and a
        # confident pixel's loss is far below the rounding of its own softplus.
        total = F.softplus(-own).double() - F.softplus(own)
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
                out.addcmul_(slope, probs)  # slope * (1 - probs) * probs, 0 where the mask is
        return grad.scatter_add_(1, label, -weight), None, None, None, None


def pixel_terms(
    logits: Tensor,
    label: Tensor,
    valid: Tensor,
    *,
    weight: Tensor | None = None,
    pool: Pool | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The sum of ``pixel_sum_bce``, and the probabilities as ``pool`` makes them smaller.

    Args:
        logits: (N, K, H, W), any float type; computed in float32 or better.
        label: (N, H, W), integers.
        valid: (N, H, W), bool; elsewhere the label does not matter and probabilities are 0.
        weight: (N, H, W), factors of the pixels' cross entropies.
        pool: Differentiable, maps (N, any, H, W) to (N, any, h, w); None leaves that term out.

    Returns:
        A scalar, and (N, K, h, w) or None.
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
    """Sum of the classes' sigmoid cross entropies, over the valid pixels plus one.

    About K times a mean over elements; exactly 0 without a valid pixel. No one-hot labels are made.

    Args:
        logits: (N, K, H, W), any float type; computed in float32 or better.
        label: (N, H, W), integers; outside [0, K) and ``ignore_index`` is ignored.
        weight: (N, H, W), factors of the pixels' losses; the divisor stays the count.
        ignore_index: A label in [0, K) to ignore as well.

    Returns:
        A scalar, float32 or better.

    Raises:
        ValueError: logits and label differ in size.
    """
    valid = valid_pixels(logits, label, ignore_index)
    return pixel_terms(logits, label, valid, weight=weight)[0]


@MODELS.register_module()
class PixelSumBCELoss(PixelLoss):
    """The cross entropy part of ``RMILoss`` alone, for any head's ``loss_decode``.

    Unlike the host's ``CrossEntropyLoss(use_sigmoid=True)``, a mean over all elements, it sums over
    classes and counts valid pixels only.

    Args:
        loss_weight: Factor of the loss.
        loss_name: Key in the log; has to contain "loss" to be trained.
    """

    def __init__(self, *, loss_weight: float = 1.0, loss_name: str = 'loss_bce') -> None:
        super().__init__(loss_weight, loss_name)

    def value(
        self, logits: Tensor, label: Tensor, valid: Tensor, weight: Tensor | None, **kwargs: Any
    ) -> Tensor:
        return pixel_terms(logits, label, valid, weight=weight)[0]
