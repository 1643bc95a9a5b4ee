"""Softmax cross entropy, averaged as in PyTorch, of all pixels or of the hard pixels only.

The hard pixels are chosen as in SPNet's released code (CVPR 2020, arXiv 2003.13328), or with
``strict=True`` as in the host's ``OhemCrossEntropy``, which trains MagNet (CVPR 2021). Differs from
both: hard pixels are found on the device without synchronisation. A batch without labels gives a
connected 0; SPNet's code gives NaN and the host's loss has no graph. A batch without hard pixels
gives 0; the host's loss gives NaN.

With ``background_weight`` and ``eps`` it is the loss of PSSL's released code (arXiv 2207.03335).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from ..errors import UserError
from .pixel_loss import PixelLoss
from .strips import sum_of_terms

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
        background_weight: Factor of the last class, in place of ``class_weight``; all other classes
            have the factor 1.
        threshold: Largest probability of the labelled class at which a pixel counts (0.7 in the
            released code of SPNet and MagNet); None counts all pixels.
        min_kept: Smallest number of pixels that count, per batch on a device.
        strict: Whether a pixel at the threshold itself does not count; see ``hard_pixels``.
        eps: Number that is added to the mean weight of all pixels, ignored ones too (1e-8 in PSSL).
        in_strips: Whether the loss resizes the logits itself, a strip at a time, so that those of
            all classes are never in memory at the size of the label.
        loss_weight: Factor of the loss.
        loss_name: Key in the log; it has to contain "loss", or the loss is not trained.

    Raises:
        UserError: ``min_kept`` is below 1, two options give the weights of the classes, or hard
            pixels are wanted of strips.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        *,
        class_weight: Sequence[float] | None = None,
        background_weight: float | None = None,
        threshold: float | None = None,
        min_kept: int = 100_000,
        strict: bool = False,
        eps: float = 0.0,
        in_strips: bool = False,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__(loss_weight, loss_name)
        if class_weight is not None and background_weight is not None:
            raise UserError(
                'WeightedCELoss got class_weight and background_weight: give only one of them'
            )
        if in_strips and threshold is not None:
            raise UserError(
                'WeightedCELoss cannot rank the pixels of a batch for threshold while it sees a '
                'strip at a time: remove threshold or in_strips'
            )
        if min_kept < 1:
            raise UserError(f'WeightedCELoss got min_kept={min_kept}: it must be at least 1')
        weights = None if class_weight is None else torch.as_tensor(class_weight).float()
        self.register_buffer('class_weight', weights, persistent=False)  # no key in checkpoints
        self.background_weight = background_weight
        self.threshold = threshold
        self.min_kept = min_kept
        self.strict = strict
        self.eps = eps
        self.resizes_logits = in_strips

    def value(
        self, logits: Tensor, label: Tensor, valid: Tensor, weight: Tensor | None, **kwargs: Any
    ) -> Tensor:
        target = label.long().masked_fill(~valid, IGNORED)
        if self.resizes_logits:
            factors = self._factors(logits, target, valid, weight)
            align_corners = kwargs.get('align_corners', False)
            total = sum_of_terms(logits, target, factors, IGNORED, align_corners)
            return total / self._divisor(factors)
        terms = F.cross_entropy(logits, target, reduction='none', ignore_index=IGNORED)  # (N, H, W)
        if self.threshold is not None:
            probs = torch.exp(-terms.detach())
            valid = hard_pixels(probs, valid, self.threshold, self.min_kept, strict=self.strict)
        factors = self._factors(logits, target, valid, weight)
        return (terms * factors).sum() / self._divisor(factors)

    def _factors(
        self, logits: Tensor, target: Tensor, valid: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Weight of each pixel, (N, H, W), in the type of the logits."""
        factors = valid.to(logits.dtype) * self._weights_of(target, logits)
        return factors if weight is None else factors * weight

    def _divisor(self, factors: Tensor) -> Tensor:
        total = factors.sum() + self.eps * factors.numel()
        # The smallest positive number replaces a sum of 0.
        return total.clamp(min=torch.finfo(factors.dtype).tiny)

    def _weights_of(self, target: Tensor, logits: Tensor) -> Tensor | float:
        num_classes = logits.shape[1]
        if self.background_weight is not None:
            weights = torch.ones_like(target, dtype=logits.dtype)
            return weights.masked_fill(target == num_classes - 1, self.background_weight)
        if self.class_weight is None:
            return 1.0
        if len(self.class_weight) != num_classes:
            raise UserError(
                f'WeightedCELoss has {len(self.class_weight)} class weights, but the logits have '
                f'{num_classes} classes: give one weight for each'
            )
        return self.class_weight[target.clamp(min=0)]
