"""RoIAlign of many small regions: a compiled operator where there is one, else plain PyTorch."""

from collections.abc import Callable
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
    """``roi_align`` by ``grid_sample``; arguments and result as there."""
    corner, far = (rois[:, 1:] / stride).split(2, 1)  # (M, 2) each, x and y
    length = (far - corner).clamp(min=1)
    if sampling_ratio:
        counts = rois.new_full((len(rois), 2), sampling_ratio, dtype=torch.long)
    else:
        counts = (length / size).ceil().long()
    pooled = features.new_zeros(len(rois), features.shape[1], size, size)
    groups = torch.stack([rois[:, 0].long(), counts[:, 0], counts[:, 1]], 1)
    for group in groups.unique(dim=0):
        members = (groups == group).all(1).nonzero()[:, 0]
        image, *samples = group.tolist()
        grids = _pool(features[image], corner[members], length[members], size, samples)
        pooled = pooled.index_copy(0, members, grids)
    return pooled


def _pool(features: Tensor, corner: Tensor, length: Tensor, size: int, samples: list) -> Tensor:
    """Regions of one image with the same numbers of samples, (m, C, R, R).

    Args:
        features: (C, H, W).
        corner: Upper left corners (m, 2) as x and y, in cells.
        length: Widths and heights (m, 2), in cells.
        size: Number of bins.
        samples: Numbers of samples of a bin on the axes x and y.
    """
    channels, height, width = features.shape
    axes, masks = [], []
    for axis, (count, cells) in enumerate(zip(samples, (width, height), strict=True)):
        steps = torch.arange(size * count, device=corner.device).to(corner) + 0.5
        position = corner[:, axis, None] + steps * (length[:, axis, None] / (size * count))
        masks.append((position >= -1) & (position <= cells))
        position = position.clamp(0, cells - 1)
        # the cell ``position`` in the coordinates of grid_sample, where a single cell is at 0
        axes.append(2 * position / max(cells - 1, 1) - int(cells > 1))
    x, y = axes
    grid = torch.stack(
        [x[:, None].expand(-1, y.shape[1], -1), y[:, :, None].expand(-1, -1, x.shape[1])], 3
    )
    sampled = F.grid_sample(
        features[None], grid.flatten(0, 1)[None], padding_mode='border', align_corners=True
    )  # (1, C, m * R * samples, R * samples)
    sampled = sampled.view(channels, len(corner), y.shape[1], x.shape[1]).transpose(0, 1)
    inside = (masks[1][:, :, None] & masks[0][:, None])[:, None]  # (m, 1, ...)
    return F.avg_pool2d(sampled * inside, (samples[1], samples[0]))
