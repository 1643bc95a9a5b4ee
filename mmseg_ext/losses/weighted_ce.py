"""Softmax cross entropy, averaged as in PyTorch, of all pixels or of the hard pixels only.

The hard pixels are chosen as in SPNet's released code (CVPR 2020, arXiv 2003.13328), or with
``strict=True`` as in the host's ``OhemCrossEntropy``, which trains MagNet (CVPR 2021). Differs from
both: hard pixels are found on the device without synchronisation. A batch without labels gives a
connected 0; SPNet's code gives NaN and the host's loss has no graph. A batch without hard pixels
gives 0; the host's loss gives NaN.
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
    """Mask of the valid pixels whose labelled class has a low probability (OHEM).

    Args:
        probs: Probability of the labelled class, any shape; all pixels of a batch are ranked
            together.
        valid: Mask of the valid pixels, same shape, bool.
        threshold: Largest probability of a hard pixel; it is raised if fewer than ``min_kept``
            pixels are hard.
        min_kept: Smallest number of hard pixels: those of lowest probability.
        strict: Whether a pixel at the threshold itself is not hard. If no more than ``min_kept``
            pixels are valid, the threshold is then raised to their largest probability.

    Returns:
        Mask of the hard pixels, same shape, bool.
    """
    ranked = torch.where(valid, probs, torch.inf).flatten()
    limit = ranked.kthvalue(min(min_kept + strict, len(ranked))).values
    # Unlike < and <=, these comparisons keep NaN.
    if strict:
        largest = torch.where(valid, probs, -torch.inf).amax()
        return valid & ~(probs >= limit.minimum(largest).clamp(min=threshold))
    return valid & ~(probs > limit.clamp(min=threshold))


@MODELS.register_module()
class WeightedCELoss(PixelLoss):
    """Mean cross entropy of the valid pixels, weighted by class.

    The sum of the weighted terms is divided by the sum of their weights, in float32 or better.
    Without a valid pixel it is 0.

    Args:
        class_weight: Factor of each class; None gives all classes the same weight.
        threshold: Largest probability of the labelled class at which a pixel counts (0.7 in the
            released code of SPNet and MagNet); None counts all pixels.
        min_kept: Smallest number of pixels that count, per batch on a device.
        strict: Whether a pixel at the threshold itself does not count; see ``hard_pixels``.
        loss_weight: Factor of the loss.
        loss_name: Key in the log; it has to contain "loss", or the loss is not trained.

    Raises:
        UserError: ``min_kept`` is below 1.
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
            raise UserError(f'WeightedCELoss got min_kept={min_kept}: it must be at least 1')
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
        # The smallest positive number replaces a sum of 0.
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
