"""Losses that any head can name in ``loss_decode``."""

from ..host import hand_logits_to_losses
from .dual_task import DualTaskLoss
from .image_weighted_ce import ImageWeightedCELoss
from .pixel_sum_bce_loss import PixelSumBCELoss, pixel_sum_bce
from .rmi_loss import RMILoss, region_mutual_information
from .weighted_ce import WeightedCELoss

__all__ = [
    'DualTaskLoss',
    'ImageWeightedCELoss',
    'PixelSumBCELoss',
    'RMILoss',
    'WeightedCELoss',
    'pixel_sum_bce',
    'region_mutual_information',
]

hand_logits_to_losses()
