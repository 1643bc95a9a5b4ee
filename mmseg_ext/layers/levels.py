"""What heads that read several levels of a backbone share."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError


def require_levels(head: Any, in_channels: int | Sequence[int]) -> None:
    """Refuses the channels of a single level.

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
    """Bilinear, to (h, w)."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners)


def pointwise_of_levels(conv: nn.Conv2d, levels: Sequence[Tensor], align_corners: bool) -> Tensor:
    """A 1x1 convolution of all levels (N, C_i, H_i, W_i), resized to the first and concatenated.

    It is the sum of 1x1 convolutions of the levels, each resized after it, which needs fewer
    multiplications and no concatenation.

    Raises:
        RuntimeError: the levels do not have its channels, as of any convolution.
    """
    widths = [x.shape[1] for x in levels]
    if sum(widths) != conv.in_channels:
        raise RuntimeError(f'expected {conv.in_channels} channels, got levels of {widths}')
    parts = conv.weight.split(widths, dim=1)
    total = F.conv2d(levels[0], parts[0], conv.bias)
    for x, weight in zip(levels[1:], parts[1:], strict=True):
        total += resize(F.conv2d(x, weight), total.shape[2:], align_corners)
    return total
