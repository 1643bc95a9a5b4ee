"""RoIAlign of many small regions: a compiled operator where there is one, else plain PyTorch."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32

Operator = Callable[..., Tensor]


def roi_align(
    features: Tensor, rois: Tensor, size: int, stride: float, sampling_ratio: int = 2
) -> Tensor:
    """Means of bilinear samples in a grid of bins over each region (``aligned=False``).

    A region is at least one cell high and wide. A sample outside of [-1, length] of an axis is 0,
    one nearer to the map is moved to its edge.

    Args:
        features: (N, C, H, W).
        rois: Regions (M, 5): number of the image, then x1, y1, x2, y2 in pixels of the image.
        size: Number R of bins of each axis.
        stride: Stride of ``features``.
        sampling_ratio: Number of samples of a bin on each axis; 0 for one sample per cell, rounded
            up, for each region and axis.

    Returns:
        (M, C, R, R), float32 or wider.
    """
    features, rois = at_least_float32(features), rois.to(at_least_float32(features).dtype)
    operator = compiled_operator()
    if operator is None:
        return roi_align_plain(features, rois, size, stride, sampling_ratio)
    return operator(features, rois, size, 1 / stride, sampling_ratio)


@cache
def compiled_operator() -> Operator | None:
    """RoIAlign of torchvision or MMCV; None where neither has it for this PyTorch."""
    for module, keywords in (
        ('torchvision.ops', dict(aligned=False)),
        ('mmcv.ops', dict(pool_mode='avg', aligned=False)),
    ):
        try:
            function = import_module(module).roi_align
        except (ImportError, RuntimeError, OSError):  # torchvision for CUDA beside PyTorch for CPUs
            continue
        return _with_keywords(function, keywords)
    return None


def _with_keywords(function: Operator, keywords: dict) -> Operator:
    def operator(
        features: Tensor, rois: Tensor, size: int, scale: float, sampling_ratio: int
    ) -> Tensor:
        return function(features, rois, (size, size), scale, sampling_ratio, **keywords)

    return operator


def roi_align_plain(
    features: Tensor, rois: Tensor, size: int, stride: float, sampling_ratio: int = 2
) -> Tensor:
    """``roi_align`` as weighted sums of cells; arguments and result as there."""
    corner, far = (rois[:, 1:] / stride).split(2, 1)  # (M, 2) each, x and y
    length = (far - corner).clamp(min=1)
    cells = features.permute(0, 2, 3, 1)  # (N, H, W, C)
    images = rois[:, 0].long()
    if sampling_ratio:
        samples = [sampling_ratio, sampling_ratio]
        return _pool(cells, images, corner, length, size, samples).permute(0, 3, 1, 2)
    counts = (length / size).ceil().long()
    pooled = [cells.new_zeros(0, size, size, cells.shape[3])]
    members = []
    for group in counts.unique(dim=0):
        chosen = (counts == group).all(1).nonzero()[:, 0]
        members.append(chosen)
        where = images[chosen], corner[chosen], length[chosen]
        pooled.append(_pool(cells, *where, size=size, samples=group.tolist()))
    order = torch.cat([images.new_zeros(0), *members]).argsort()
    return torch.cat(pooled)[order].permute(0, 3, 1, 2)


def _pool(
    cells: Tensor, images: Tensor, corner: Tensor, length: Tensor, size: int, samples: Sequence[int]
) -> Tensor:
    """Regions with the same numbers of samples, (m, R, R, C).

    Args:
        cells: Features (N, H, W, C).
        images: Number of the image of each region, (m,).
        corner: Upper left corners (m, 2) as x and y, in cells.
        length: Widths and heights (m, 2), in cells.
        size: Number of bins.
        samples: Numbers of samples of a bin on the axes x and y.
    """
    count, height, width, channels = cells.shape
    columns, column_weights = _axis(corner[:, 0], length[:, 0], width, size, samples[0])
    rows, row_weights = _axis(corner[:, 1], length[:, 1], height, size, samples[1])
    rows = rows + (images * height)[:, None, None]
    # all pairs of a row and a column of a bin: (m, R, R, rows, columns), then a bin in each row
    numbers = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    sums = F.embedding_bag(
        numbers.flatten(0, 2).flatten(1),
        cells.reshape(count * height * width, channels),
        per_sample_weights=weights.flatten(0, 2).flatten(1),
        mode='sum',
    )
    return sums.view(-1, size, size, channels)


def _axis(
    first: Tensor, length: Tensor, cells: int, size: int, samples: int
) -> tuple[Tensor, Tensor]:
    """Cells that each bin of an axis reads and their weights, (m, R, 2 * samples) each.

    Args:
        first: Left or upper edge of each region, (m,), in cells.
        length: Their lengths (m,), in cells.
        cells: Number of cells.
        size: Number of bins R.
        samples: Number of samples of a bin.
    """
    steps = torch.arange(size * samples, device=first.device).to(first) + 0.5
    position = first[:, None] + steps * (length[:, None] / (size * samples))
    share = ((position >= -1) & (position <= cells)).to(first) / samples
    position = position.clamp(0, cells - 1)
    low = position.nan_to_num().floor()  # a region that is NaN reads a cell and gives NaN
    part = position - low
    numbers = torch.stack([low, (low + 1).clamp(max=cells - 1)], 2).long()
    weights = torch.stack([share * (1 - part), share * part], 2)
    numbers, weights = numbers.flatten(1), weights.flatten(1)
    return numbers.unflatten(1, (size, -1)), weights.unflatten(1, (size, -1))
