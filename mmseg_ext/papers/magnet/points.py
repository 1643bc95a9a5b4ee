"""Which points of a scale are replaced: certainty, smoothed score, selection."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # (h, w)
MEDIAN_VALUES = 2**23  # sorted at a time: 32 MiB


def certainty(probs: Tensor) -> Tensor:
    """How far the most probable class is before the next, (N, K, H, W) to (N, 1, H, W) in [0, 1].

    Runs over the classes with the two largest values, bit-equal to ``topk`` and far cheaper.
    """
    first = probs[:, 0].clone()
    second = torch.full_like(first, -torch.inf)
    for p in probs[:, 1:].unbind(1):
        torch.maximum(second, torch.minimum(first, p), out=second)
        torch.maximum(first, p, out=first)
    return first.sub_(second)[:, None]


@lru_cache(maxsize=64)
def nearest_index(size: int, out: int) -> Tensor:
    """Place, on an axis of ``size``, of each of ``out`` pixels that PyTorch's ``nearest`` reads.

    Made on the CPU, so that every device reads the same.
    """
    places = torch.arange(size, dtype=torch.float64)[None, None]
    return F.interpolate(places, size=out, mode='nearest').long().flatten()


def nearest(x: Tensor, size: Size) -> Tensor:
    """(..., H, W) to (..., *size), each pixel copied."""
    rows, columns = (
        nearest_index(n, m).to(x.device) for n, m in zip(x.shape[-2:], size, strict=True)
    )
    return x[..., rows[:, None], columns]


def median_filter(x: Tensor, kernel: int) -> Tensor:
    """Median of ``kernel`` x ``kernel`` values, zeros outside, of (H, W), in strips of rows."""
    (height, width), border = x.shape, kernel // 2
    padded = F.pad(x, (border,) * 4)[None, None]
    step = max(1, MEDIAN_VALUES // (kernel**2 * width))
    strips = [
        F.unfold(padded[..., top : min(top + step, height) + 2 * border, :], kernel).median(dim=1)
        for top in range(0, height, step)
    ]
    return torch.cat([strip.values for strip in strips], dim=1).view(height, width)


def select_points(score: Tensor, count: int, size: Sequence[int]) -> Tensor:
    """The ``count`` pixels with the highest scores, and of equal ones the first.

    Args:
        score: (h, w), of a grid from which the pixels copy the nearest value.
        count: Of pixels.
        size: (H, W) of the pixels.

    Returns:
        (H, W), bool. Equal to sorting all pixels stably, but only the cells of the grid are sorted.
    """
    height, width = size
    copies = [
        nearest_index(n, m).bincount(minlength=n) for n, m in zip(score.shape, size, strict=True)
    ]
    pixels = (copies[0][:, None] * copies[1]).to(score.device)  # of each cell
    values, order = score.flatten().sort(descending=True)
    reached = pixels.flatten()[order].cumsum(0)
    last = (reached < count).sum().clamp(max=len(values) - 1)
    threshold = values.gather(0, last[None])
    missing = count - (pixels * (score > threshold)).sum()
    wide = nearest(score, (height, width))
    tied = wide == threshold
    return (wide > threshold) | (tied & (tied.flatten().cumsum(0).view(height, width) <= missing))
