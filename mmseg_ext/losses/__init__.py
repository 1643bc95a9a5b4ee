"""Losses that any head can name in ``loss_decode``."""

from .pixel_sum_bce_loss import PixelSumBCELoss, pixel_sum_bce
from .rmi_loss import RMILoss, region_mutual_information

__all__ = ['PixelSumBCELoss', 'RMILoss', 'pixel_sum_bce', 'region_mutual_information']
