"""Softmax cross entropy as PyTorch averages it, of all pixels or of the hard ones alone.

The hard pixels are those of SPNet's released code (CVPR 2020, arXiv 2003.13328). Differs from it:
they are found on the device, without a wait, and a batch without labels gives 0 and not NaN. The
host's ``OhemCrossEntropy`` keeps other pixels and divides by their number.
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


def hard_pixels(probs: Tensor, valid: Tensor, hard_below: float, min_kept: int) -> Tensor:
    """Valid pixels that are not yet sure of their class, ``min_kept`` of them at least.

    Args:
        probs: Probability of the labelled class, of any shape; the whole batch is ranked together.
        valid: Of the same shape, bool.
        hard_below: Pixels up to this probability are kept, and more if they are too few.
        min_kept: That many of the least probable are kept in any case.

    Returns:
        Of the same shape, bool.
    """
    if min_kept >= probs.numel():
        return valid
    ranked = torch.where(valid, probs, torch.inf).flatten()  # inf where too few are valid: all kept
    threshold = ranked.kthvalue(min_kept).values.clamp(min=hard_below)
    return valid & ~(probs > threshold)  # not <=, which would hide a NaN


@MODELS.register_module()
class WeightedCELoss(PixelLoss):
    """Mean cross entropy of the valid pixels, each counted by the weight of its class.

    The sum of the weighted terms is divided by the sum of their weights, in float32 or better;
    0 without a valid pixel.

    Args:
        class_weight: One factor a class; None counts all pixels alike.
        hard_below: Averages only the pixels whose class has at most this probability (0.7 in
            SPNet's released code); None averages all.
        min_kept: So many pixels of a batch on one device are averaged in any case.
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
        hard_below: float | None = None,
        min_kept: int = 100_000,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__(loss_weight, loss_name)
        if min_kept < 1:
            raise UserError(f'WeightedCELoss got min_kept={min_kept}: keep at least 1 pixel')
        weights = None if class_weight is None else torch.as_tensor(class_weight).float()
        self.register_buffer('class_weight', weights, persistent=False)  # no key in checkpoints
        self.hard_below = hard_below
        self.min_kept = min_kept

    def value(
        self, logits: Tensor, label: Tensor, valid: Tensor, weight: Tensor | None, **kwargs: Any
    ) -> Tensor:
        target = label.long().masked_fill(~valid, IGNORED)
        terms = F.cross_entropy(logits, target, reduction='none', ignore_index=IGNORED)  # (N, H, W)
        if self.hard_below is not None:
            valid = hard_pixels(torch.exp(-terms.detach()), valid, self.hard_below, self.min_kept)
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
