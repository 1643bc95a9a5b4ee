"""Softmax cross entropy as PyTorch averages it, of all pixels or of the hard ones alone.

The hard pixels are those of SPNet's released code (CVPR 2020, arXiv 2003.13328), or with
``strict=True`` those of the host's ``OhemCrossEntropy``, as MagNet (CVPR 2021) trains. Differs from
both: hard pixels are found on the device, without a wait. A batch without labels gives a connected
0, where SPNet's code gives NaN and the host's loss has no graph. A batch without hard pixels gives
0, where the host's loss gives NaN.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from ..errors import UserError
from .pixel_loss import PixelLoss

IGNORED = -1


def hard_pixels(
    probs: Tensor, valid: Tensor, threshold: float, min_kept: int, *, strict: bool = False
) -> Tensor:
    """Valid pixels whose class has a low probability (online hard example mining).

    Args:
        probs: Probability of the labelled class, of any shape; the whole batch is ranked together.
        valid: Mask of the pixels that have a class, of the same shape, bool.
        threshold: Probability up to which pixels are hard.
        min_kept: Number of pixels, those of the lowest probability, that are hard in any case.
        strict: Whether pixels are hard below the threshold only, not at it. Then of ``min_kept``
            valid pixels or fewer the most probable is hard below ``threshold`` only.

    Returns:
        Mask of the hard pixels, of the same shape, bool.
    """
    ranked = torch.where(valid, probs, torch.inf).flatten()
    limit = ranked.kthvalue(min(min_kept + strict, len(ranked))).values
    # Not < and <=, which would hide a NaN.
    if strict:
        largest = torch.where(valid, probs, -torch.inf).amax()
        return valid & ~(probs >= limit.minimum(largest).clamp(min=threshold))
    return valid & ~(probs > limit.clamp(min=threshold))


@MODELS.register_module()
class WeightedCELoss(PixelLoss):
    """Mean cross entropy of the valid pixels, each counted by the weight of its class.

    The sum of the weighted terms is divided by the sum of their weights, in float32 or better;
    0 without a valid pixel.

    Args:
        class_weight: Factor of each class; None counts all pixels alike.
        threshold: Probability of the class up to which pixels are averaged (0.7 as released with
            SPNet and MagNet); None averages all pixels.
        min_kept: Number of pixels of a batch on one device that are averaged in any case.
        strict: Whether a pixel at the threshold itself does not count; see ``hard_pixels``.
        loss_weight: Factor of the loss.
        loss_name: Key in the log; has to contain "loss" to be trained.

    Raises:
        ValueError: ``min_kept`` is below 1.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        *,
        class_weight: Sequence[float] | None = None,
        threshold: float | None = None,
        min_kept: int = 100_000,
        strict: bool = False,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__(loss_weight, loss_name)
        if min_kept < 1:
            raise UserError(f'WeightedCELoss got min_kept={min_kept}: keep at least 1 pixel')
        weights = None if class_weight is None else torch.as_tensor(class_weight).float()
        self.register_buffer('class_weight', weights, persistent=False)  # no key in checkpoints
        self.threshold = threshold
        self.min_kept = min_kept
        self.strict = strict

    def value(
        self, logits: Tensor, label: Tensor, valid: Tensor, weight: Tensor | None, **kwargs: Any
    ) -> Tensor:
        target = label.long().masked_fill(~valid, IGNORED)
        terms = F.cross_entropy(logits, target, reduction='none', ignore_index=IGNORED)  # (N, H, W)
        if self.threshold is not None:
            probs = torch.exp(-terms.detach())
            valid = hard_pixels(probs, valid, self.threshold, self.min_kept, strict=self.strict)
        factors = valid.to(terms.dtype) * self._weights_of(target, logits.shape[1])
        if weight is not None:
            factors = factors * weight
        # The smallest number above 0 stands for a sum of no weights.
        divisor = factors.sum().clamp(min=torch.finfo(factors.dtype).tiny)
        return (terms * factors).sum() / divisor

    def _weights_of(self, target: Tensor, num_classes: int) -> Tensor | float:
        if self.class_weight is None:
            return 1.0
        if len(self.class_weight) != num_classes:
            raise UserError(
                f'WeightedCELoss has {len(self.class_weight)} class weights, but the logits have '
                f'{num_classes} classes: give one weight for each'
            )
        return self.class_weight[target.clamp(min=0)]
