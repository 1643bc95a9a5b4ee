"""Search for weights that are infinite or not a number."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def float_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a state dict whose values may be infinite, by name."""
    return {  # PyTorch has no norms of types with 8 bits
        name: tensor.detach().float() if tensor.dtype.itemsize == 1 else tensor.detach()
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel()
    }


@torch.no_grad()
def are_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether the norms of all tensors are finite, bool (), without waiting for the device.

    A tensor of finite values may have an infinite norm; ``first_not_finite`` is exact.
    """
    by_type = defaultdict(list)
    for tensor in tensors:
        by_type[tensor.dtype, tensor.device].append(tensor)
    groups = [torch.stack(torch._foreach_norm(group)).isfinite() for group in by_type.values()]
    verdicts = [group.all().to(groups[0].device, non_blocking=True) for group in groups]
    return torch.stack(verdicts).all() if verdicts else torch.ones((), dtype=torch.bool)


def first_not_finite(state: Mapping[str, Any]) -> str | None:
    """Name of the first tensor of a state dict with an infinite value or NaN, or None."""
    tensors = float_tensors(state)
    if bool(are_finite(tensors.values())):
        return None
    return next((name for name, x in tensors.items() if not x.isfinite().all()), None)
