"""Cross entropy that weighs the classes of each image by their rarity in it, as Gated-SCNN trains.

Differs from the released code (nv-tlabs/GSCNN): classes are counted on the device, and an image
without labels gives 0 and not NaN.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from .pixel_sum_bce_loss import refuse_other_reductions, valid_pixels

REDUCTIONS = ('mean', 'sum')


def rarity_weights(target: Tensor, num_classes: int, upper_bound: float) -> Tensor:
    """Weight of each class in each image, float32.

    Args:
        target: (N, H, W), int64 in [0, K], K for ignored pixels.
        num_classes: K.
        upper_bound: What a class gains at most above 1, where it is rare.

    Returns:
        (N, K): ``1 + upper_bound * (1 - share)`` of a class with pixels, else 1.
    """
    flat = target.flatten(1)
    counts = torch.zeros(len(flat), num_classes + 1, dtype=torch.int64, device=target.device)
    counts = counts.scatter_add_(1, flat, torch.ones_like(flat))[:, :num_classes]
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return 1 + upper_bound * torch.where(counts > 0, 1 - share, 0)


@MODELS.register_module()
class ImageWeightedCELoss(nn.Module):
    """Mean cross entropy of each image's valid pixels, rare classes of the image counting more.

    A class with the share p of the valid pixels weighs ``1 + upper_bound * (1 - p)``. An image
    without any is 0.

    Args:
        upper_bound: What a class gains at most.
        reduction: 'mean' over the images, or their 'sum', as released, which grows with the batch.
        loss_weight: Factor of the loss.
        loss_name: Key in the log; has to contain "loss" to be trained.

    Raises:
        ValueError: ``reduction`` is neither.
    """

    def __init__(
        self,
        *,
        upper_bound: float = 1.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction={reduction!r} of images is one of {REDUCTIONS}')
        self.upper_bound = upper_bound
        self.over_images = torch.mean if reduction == 'mean' else torch.sum
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
            ValueError: Logits and label differ in size, or another divisor is asked for.
        """
        refuse_other_reductions(self, avg_factor, reduction_override)
        classes = cls_score.shape[1]
        valid = valid_pixels(cls_score, label, ignore_index)
        target = torch.where(valid, label, classes).long()
        logits = cls_score.to(torch.promote_types(cls_score.dtype, torch.float32))
        terms = F.cross_entropy(logits, target, reduction='none', ignore_index=classes)
        weights = F.pad(rarity_weights(target, classes, self.upper_bound), (0, 1)).to(terms.dtype)
        factors = weights.gather(1, target.flatten(1)).view_as(terms)
        if weight is not None:
            factors = factors * weight
        total = factors.sum((1, 2))
        # The smallest number above 0 stands for a sum of no weights.
        means = (terms * factors).sum((1, 2)) / total.clamp(min=torch.finfo(total.dtype).tiny)
        return self.loss_weight * self.over_images(means)
