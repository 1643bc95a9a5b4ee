"""Deformable attention over several levels (Deformable DETR, arXiv 2010.04159), without kernels."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...layers.sizes import Size


class DeformableAttention(nn.Module):
    """Mixes a few values of each level, at points that depend on the query.

    Args:
        channels: Width C.
        num_heads: Number of heads.
        num_levels: Number of levels.
        num_points: Number of points per head and level.
    """

    def __init__(
        self, channels: int, *, num_heads: int = 8, num_levels: int = 3, num_points: int = 4
    ) -> None:
        super().__init__()
        self.shape = num_heads, num_levels, num_points
        self.sampling_offsets = nn.Linear(channels, math.prod(self.shape) * 2)
        self.attention_weights = nn.Linear(channels, math.prod(self.shape))
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Point p of a head starts p + 1 pixels away, in the direction of the head."""
        num_heads, num_levels, num_points = self.shape
        angle = torch.arange(num_heads) * (2 * torch.pi / num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=1)
        direction = direction / direction.abs().amax(1, keepdim=True)
        distance = torch.arange(1, num_points + 1)[:, None]
        offsets = (direction[:, None, None] * distance).expand(-1, num_levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        for zero in (self.sampling_offsets.weight, *self.attention_weights.parameters()):
            nn.init.zeros_(zero)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, query: Tensor, value: Tensor, reference: Tensor, sizes: Sequence[Size]
    ) -> Tensor:
        """(N, Q, C).

        Args:
            query: (N, Q, C).
            value: (N, L, C), all levels after each other.
            reference: Places (Q, 2) of the queries, (x, y) in [0, 1].
            sizes: Size (h, w) of each level.
        """
        locations, weights = self.points(query, reference, sizes)
        values = self.value_proj(value).unflatten(2, (self.shape[0], -1))  # (N, L, heads, D)
        return self.output_proj(sample_levels(values, locations, weights, sizes))

    def points(
        self, query: Tensor, reference: Tensor, sizes: Sequence[Size]
    ) -> tuple[Tensor, Tensor]:
        """Points and their weights, as ``sample_levels`` takes them; arguments as ``forward``."""
        num_heads, num_levels, num_points = self.shape
        offsets = self.sampling_offsets(query).unflatten(2, (*self.shape, 2))
        weights = self.attention_weights(query).unflatten(2, (num_heads, -1)).softmax(-1)
        scale = offsets.new_tensor([(w, h) for h, w in sizes])[:, None]  # (levels, 1, 2)
        locations = reference[:, None, None, None] + offsets / scale
        return locations, weights.unflatten(3, (num_levels, num_points))


def sample_levels(
    values: Tensor, locations: Tensor, weights: Tensor, sizes: Sequence[Size]
) -> Tensor:
    """Weighted sums of bilinear samples, (N, Q, heads * D); zeros outside of a level.

    On a GPU, float32 values go to mmcv's compiled operation where mmcv has it. Otherwise the
    samples of one level are in memory at a time, and the backward pass computes them again.

    Args:
        values: (N, L, heads, D), all levels after each other.
        locations: (N, Q, heads, levels, points, 2), (x, y) in [0, 1].
        weights: (N, Q, heads, levels, points).
        sizes: Size (h, w) of each level.
    """
    operation = compiled_operation()
    if operation is not None and values.is_cuda and values.dtype == torch.float32:
        shapes = torch.tensor(sizes, device=values.device)
        starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
        # The step is the number of images that the operation takes at a time; it divides N.
        return operation.apply(
            values, shapes, starts, locations, weights, math.gcd(64, len(values))
        )
    levels = values.split([h * w for h, w in sizes], dim=1)
    total: Any = 0
    for i, (size, level) in enumerate(zip(sizes, levels, strict=True)):
        args = level, locations[:, :, :, i], weights[:, :, :, i], size
        if torch.is_grad_enabled():
            total = total + checkpoint(
                _sample_level, *args, use_reentrant=False, preserve_rng_state=False
            )
        else:
            total += _sample_level(*args)
    return total.unflatten(0, (len(values), -1)).permute(0, 3, 1, 2).flatten(2)


def _sample_level(value: Tensor, location: Tensor, weight: Tensor, size: Size) -> Tensor:
    """(N * heads, D, Q) of one level: value (N, h * w, heads, D), location (N, Q, heads, P, 2)."""
    value = value.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, size)
    grid = (2 * location - 1).transpose(1, 2).flatten(0, 1)  # (N * heads, Q, P, 2)
    samples = F.grid_sample(value, grid, mode='bilinear', align_corners=False)
    return (samples * weight.transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)


@cache
def compiled_operation() -> Any:
    """Autograd function of mmcv's compiled operation; None where mmcv is not compiled."""
    try:
        from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
    except ImportError:
        return None
    return MultiScaleDeformableAttnFunction
