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
from torch import Tensor, nn

from .pixel_sum_bce_loss import refuse_other_reductions, valid_pixels

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
class WeightedCELoss(nn.Module):
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
        super().__init__()
        if min_kept < 1:
            raise ValueError(f'WeightedCELoss got min_kept={min_kept}: keep at least 1 pixel.')
        weights = None if class_weight is None else torch.as_tensor(class_weight).float()
        self.register_buffer('class_weight', weights, persistent=False)  # no key in checkpoints
        self.hard_below = hard_below
        self.min_kept = min_kept
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        ignore_index: int = 255,
        **kwargs: Any,
    ) -> Tensor:
        """Cross entropy of a batch.

        Args:
            cls_score: Logits (N, K, H, W), any float type.
            label: (N, H, W), integers; outside [0, K) and ``ignore_index`` is ignored.
            weight: (N, H, W), further weights of the pixels.
            avg_factor: None.
            reduction_override: None or 'mean'.
            ignore_index: A label in [0, K) to ignore as well.
            **kwargs: What heads hand to other losses.

        Returns:
            A scalar, float32 or better.

        Raises:
            ValueError: Logits and label differ in size, the classes are not as many as the weights,
                or another divisor is asked for.
        """
        refuse_other_reductions(self, avg_factor, reduction_override)
        valid = valid_pixels(cls_score, label, ignore_index)
        logits = cls_score.to(torch.promote_types(cls_score.dtype, torch.float32))
        target = label.long().masked_fill(~valid, IGNORED)
        terms = F.cross_entropy(logits, target, reduction='none', ignore_index=IGNORED)  # (N, H, W)
        if self.hard_below is not None:
            valid = hard_pixels(torch.exp(-terms.detach()), valid, self.hard_below, self.min_kept)
        factors = valid.to(terms.dtype) * self._weights_of(target, logits.shape[1])
        if weight is not None:
            factors = factors * weight
        # The smallest number above 0 stands for a sum of no weights.
        divisor = factors.sum().clamp(min=torch.finfo(factors.dtype).tiny)
        return self.loss_weight * (terms * factors).sum() / divisor

    def _weights_of(self, target: Tensor, num_classes: int) -> Tensor | float:
        if self.class_weight is None:
            return 1.0
        if len(self.class_weight) != num_classes:
            raise ValueError(
                f'WeightedCELoss has {len(self.class_weight)} class weights, but the logits have '
                f'{num_classes} classes: give one weight for each.'
            )
        return self.class_weight[target.clamp(min=0)]
