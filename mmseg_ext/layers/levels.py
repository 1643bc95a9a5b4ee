"""What heads that read several levels of a backbone share."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .pointwise import outputs_of_parts


def require_levels(head: Any, in_channels: int | Sequence[int]) -> None:
    """Refuses the channels of a single level.

    Raises:
        ValueError: ``in_channels`` is a number, as base models have it.
    """
    if isinstance(in_channels, int):
        name = type(head).__name__
        raise UserError(
            f'{name} reads several levels, got in_channels={in_channels}: '
            f"write decode_head=dict(type='{name}', **_base_.levels)"
        )


def resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Bilinear, to (h, w)."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners)


def pointwise_of_levels(conv: nn.Conv2d, levels: Sequence[Tensor], align_corners: bool) -> Tensor:
    """A 1x1 convolution of all levels (N, C_i, H_i, W_i), resized to the first and concatenated.

    Each level is convolved at its own size and resized after that, which needs fewer
    multiplications and no concatenation.

    Raises:
        RuntimeError: the levels do not have the channels of the convolution.
    """
    outputs = outputs_of_parts(conv, levels)
    total = next(outputs)
    for output in outputs:
        total += resize(output, total.shape[2:], align_corners)
    return total
