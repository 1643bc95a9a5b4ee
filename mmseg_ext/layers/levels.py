"""Functions shared by heads that read several levels of a backbone."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .pointwise import pointwise_products


def require_levels(head: Any, in_channels: int | Sequence[int]) -> None:
    """Checks that ``in_channels`` lists several levels.

    Raises:
        UserError: ``in_channels`` is a number.
    """
    if isinstance(in_channels, int):
        name = type(head).__name__
        raise UserError(
            f'{name} reads several levels, got in_channels={in_channels}: write '
            'in_channels=[...] and in_index=[...], or leave both to model.levels'
        )


def resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Resizes (N, C, H, W) to ``size`` (h, w) with bilinear interpolation."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners)


def pointwise_of_levels(conv: nn.Conv2d, levels: Sequence[Tensor], align_corners: bool) -> Tensor:
    """1x1 convolution of all levels (N, C_i, H_i, W_i), resized to the first and concatenated.

    It is computed as sum_i resize(W_i x_i) + b, which needs fewer multiplications than
    W cat_i(resize(x_i)) + b and no concatenation.

    Raises:
        RuntimeError: The channels of the levels do not sum to those of the convolution.
    """
    products = pointwise_products(conv, levels)
    total = next(products)
    for product in products:
        total += resize(product, total.shape[2:], align_corners)
    return total
