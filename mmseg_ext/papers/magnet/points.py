"""Selection of the points to refine: certainty, smoothed score, highest scores."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.sizes import Size

MEDIAN_VALUES = 2**23  # values sorted at a time by the median filter: 32 MiB


def certainty(probs: Tensor) -> Tensor:
    """Largest probability minus the second largest, (N, K, H, W) to (N, 1, H, W) in [0, 1].

    A single pass over the classes keeps the two largest values. The result is bit-equal to that of
    ``topk`` and far cheaper.
    """
    first = probs[:, 0].clone()
    second = torch.full_like(first, -torch.inf)
    for p in probs[:, 1:].unbind(1):
        torch.maximum(second, torch.minimum(first, p), out=second)
        torch.maximum(first, p, out=first)
    return first.sub_(second)[:, None]


@lru_cache(maxsize=64)
def nearest_index(size: int, out: int) -> Tensor:
    """Indices (out,) that PyTorch's ``nearest`` reads when it resizes an axis of ``size``.

    They are computed on the CPU, so that every device reads the same pixels.
    """
    index = torch.arange(size, dtype=torch.float64)[None, None]
    return F.interpolate(index, size=out, mode='nearest').long().flatten()


def nearest(x: Tensor, size: Size) -> Tensor:
    """Resizes (..., H, W) to (..., *size) by copying pixels."""
    rows, columns = (
        nearest_index(n, m).to(x.device) for n, m in zip(x.shape[-2:], size, strict=True)
    )
    return x[..., rows[:, None], columns]


def median_filter(x: Tensor, kernel: int) -> Tensor:
    """Median of ``kernel`` x ``kernel`` values of (H, W), with zeros outside, in strips of rows."""
    (height, width), border = x.shape, kernel // 2
    padded = F.pad(x, (border,) * 4)[None, None]
    step = max(1, MEDIAN_VALUES // (kernel**2 * width))
    strips = [
        F.unfold(padded[..., top : min(top + step, height) + 2 * border, :], kernel).median(dim=1)
        for top in range(0, height, step)
    ]
    return torch.cat([strip.values for strip in strips], dim=1).view(height, width)


def select_points(score: Tensor, count: int, size: Sequence[int]) -> Tensor:
    """Map (H, W), bool, of the ``count`` pixels with the highest scores.

    Of equal scores the first pixels are taken. The result equals a stable sort of all pixels, but
    only the cells of the grid are sorted.

    Args:
        score: Scores (h, w) of a grid; a pixel has the score of the nearest cell.
        count: Number of pixels to select.
        size: Size (H, W) of the map.
    """
    height, width = size
    copies = [
        nearest_index(n, m).bincount(minlength=n) for n, m in zip(score.shape, size, strict=True)
    ]
    pixels = (copies[0][:, None] * copies[1]).to(score.device)  # number in each cell
    values, order = score.flatten().sort(descending=True)
    reached = pixels.flatten()[order].cumsum(0)
    last = (reached < count).sum().clamp(max=len(values) - 1)
    threshold = values.gather(0, last[None])
    missing = count - (pixels * (score > threshold)).sum()
    wide = nearest(score, (height, width))
    tied = wide == threshold
    return (wide > threshold) | (tied & (tied.flatten().cumsum(0).view(height, width) <= missing))
