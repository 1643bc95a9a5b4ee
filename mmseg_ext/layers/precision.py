"""Float types for sums and exponentials, which half precision would round too far."""

import torch
from torch import Tensor


def wide_dtype(x: Tensor) -> torch.dtype:
    """Float type of ``x``, but float32 where that is narrower, as autocast makes it."""
    return torch.promote_types(x.dtype, torch.float32)


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is where its type is wider."""
    return x.to(wide_dtype(x))
