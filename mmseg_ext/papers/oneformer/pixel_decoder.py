"""Pixel decoder: deformable attention over three levels, then one step of an FPN (Sec. 3.2)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.precision import at_least_float32
from ...layers.sizes import Size, size_of
from .attention import FeedForward, init_matrices, sine_map
from .deformable import DeformableAttention


class EncoderLayer(nn.Module):
    """Deformable attention of each pixel to all levels, and a feed-forward block.

    Args:
        channels: Width C.
        hidden: Width of the feed-forward block.
        num_heads: Number of heads.
        num_levels: Number of levels.
        dropout: Probability of dropout.
    """

    def __init__(
        self, channels: int, hidden: int, *, num_heads: int, num_levels: int, dropout: float
    ) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(channels, num_heads=num_heads, num_levels=num_levels)
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.ffn = FeedForward(channels, hidden, dropout)

    def forward(
        self, x: Tensor, position: Tensor, reference: Tensor, sizes: Sequence[Size]
    ) -> Tensor:
        """X (N, L, C) to the same; further arguments as ``DeformableAttention.forward``."""
        mixed = self.self_attn(x + position, x, reference, sizes)
        return self.ffn(self.norm(x + self.dropout(mixed)))


class PixelDecoder(nn.Module):
    """Features of all levels for the queries, and features at stride 4 for the masks.

    It runs in float32 under autocast too, as released.

    Args:
        in_channels: Widths of the four levels, strides 4 to 32.
        channels: Width C, a multiple of 32.
        num_layers: Number of encoder layers.
        hidden: Width of their feed-forward blocks.
        num_heads: Number of heads.
        dropout: Probability of dropout.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        num_layers: int = 6,
        hidden: int = 1024,
        num_heads: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.channels = channels
        fine, *coarse = in_channels
        self.input_proj: Any = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 1), nn.GroupNorm(32, channels))
            for width in reversed(coarse)
        )
        self.level_embed = nn.Parameter(torch.empty(len(coarse), channels))
        self.layers: Any = nn.ModuleList(
            EncoderLayer(
                channels, hidden, num_heads=num_heads, num_levels=len(coarse), dropout=dropout
            )
            for _ in range(num_layers)
        )
        self.lateral: Any = nn.Sequential(
            nn.Conv2d(fine, channels, 1, bias=False), nn.GroupNorm(32, channels)
        )
        self.output: Any = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(32, channels),
            nn.ReLU(),
        )
        self.mask_features: Any = nn.Conv2d(channels, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialisation of the released code."""
        init_matrices(self.layers, nn.init.xavier_uniform_)
        for layer in self.layers:
            layer.self_attn.reset_parameters()
        nn.init.normal_(self.level_embed)
        for conv, _ in self.input_proj:
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)
        for conv in (self.lateral[0], self.output[0], self.mask_features):
            nn.init.kaiming_uniform_(conv.weight, a=1)
        nn.init.zeros_(self.mask_features.bias)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Mask features (N, C, H / 4, W / 4), and levels (N, C, h, w) of strides 32, 16 and 8.

        Args:
            levels: Levels (N, C_i, H_i, W_i) of the backbone, strides 4 to 32.
        """
        with torch.autocast(levels[0].device.type, enabled=False):
            fine, *coarse = map(at_least_float32, levels)
            maps = [proj(x) for proj, x in zip(self.input_proj, reversed(coarse), strict=True)]
            maps = self._encode(maps)
            y = self.lateral(fine)
            y = y + F.interpolate(maps[-1], size_of(y), mode='bilinear', align_corners=False)
            return self.mask_features(self.output(y)), maps

    def _encode(self, maps: list[Tensor]) -> list[Tensor]:
        """The encoder layers on maps (N, C, h, w) of all levels."""
        sizes = [size_of(x) for x in maps]
        x = torch.cat([x.flatten(2).mT for x in maps], dim=1)
        position = torch.cat(
            [
                sine_map(size, self.channels, x) + embed
                for size, embed in zip(sizes, self.level_embed, strict=True)
            ]
        )
        reference = torch.cat([_centres(size, x) for size in sizes])
        for layer in self.layers:
            x = layer(x, position, reference, sizes)
        parts = x.split([h * w for h, w in sizes], dim=1)
        return [part.mT.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]


def _centres(size: Size, like: Tensor) -> Tensor:
    """Centres (h * w, 2) of all pixels, (x, y) in [0, 1]."""
    y, x = ((torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n for n in size)
    return torch.stack(torch.meshgrid(x, y, indexing='xy'), dim=2).flatten(0, 1)
