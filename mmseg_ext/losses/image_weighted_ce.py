"""Cross entropy with class weights by rarity in each image, as Gated-SCNN trains.

Differs from the released code (nv-tlabs/GSCNN): classes are counted on the device, and an image
without labels gives 0 instead of NaN.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from ..errors import UserError
from .pixel_loss import PixelLoss

REDUCTIONS = ('mean', 'sum')


def rarity_weights(target: Tensor, num_classes: int, upper_bound: float) -> Tensor:
    """Weight of each class in each image, float32.

    Args:
        target: Labels, (N, H, W), int64 in [0, K]; K for ignored pixels.
        num_classes: Number of classes K.
        upper_bound: Largest increase of a weight above 1, for the rarest classes.

    Returns:
        Weights (N, K): 1 + upper_bound (1 - p) for a class with the fraction p of an image's valid
        pixels; 1 for p = 0.
    """
    flat = target.flatten(1)
    counts = torch.zeros(len(flat), num_classes + 1, dtype=torch.int64, device=target.device)
    counts = counts.scatter_add_(1, flat, torch.ones_like(flat))[:, :num_classes]
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return 1 + upper_bound * torch.where(counts > 0, 1 - share, 0)


@MODELS.register_module()
class ImageWeightedCELoss(PixelLoss):
    """Mean cross entropy of the valid pixels of each image, with larger weights for rare classes.

    A class with the fraction p of the image's valid pixels has the weight 1 + upper_bound (1 - p).
    The loss of an image without valid pixels is 0.

    Args:
        upper_bound: Largest increase of a weight above 1.
        reduction: Reduction over the images: 'mean', or 'sum' as released, which grows with the
            batch.
        loss_weight: Factor of the loss.
        loss_name: Key in the log; it has to contain "loss", or the loss is not trained.

    Raises:
        UserError: ``reduction`` is neither 'mean' nor 'sum'.
    """

    def __init__(
        self,
        *,
        upper_bound: float = 1.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__(loss_weight, loss_name)
        if reduction not in REDUCTIONS:
            raise UserError(f'reduction={reduction!r} must be one of {REDUCTIONS}')
        self.upper_bound = upper_bound
        self.over_images = torch.mean if reduction == 'mean' else torch.sum

    def value(
        self, logits: Tensor, label: Tensor, valid: Tensor, weight: Tensor | None, **kwargs: Any
    ) -> Tensor:
        classes = logits.shape[1]
        target = torch.where(valid, label, classes).long()
        terms = F.cross_entropy(logits, target, reduction='none', ignore_index=classes)
        weights = F.pad(rarity_weights(target, classes, self.upper_bound), (0, 1)).to(terms.dtype)
        factors = weights.gather(1, target.flatten(1)).view_as(terms)
        if weight is not None:
            factors = factors * weight
        total = factors.sum((1, 2))
        # The smallest positive number replaces a sum of 0.
        means = (terms * factors).sum((1, 2)) / total.clamp(min=torch.finfo(total.dtype).tiny)
        return self.over_images(means)
