"""ConvNeXt: A ConvNet for the 2020s.

Liu, Mao, Wu, Feichtenhofer, Darrell, Xie, CVPR 2022, arXiv 2201.03545. Code:
facebookresearch/ConvNeXt (MIT). The host has it only through another package, mmpretrain. Names are
the released ones.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of maps (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps to maps of the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7 convolution, then two linear layers, scaled and added to the input (Fig. 4).

    Args:
        channels: Width C.
        drop_path: Probability with which an image skips the block in training.
        layer_scale: Scale at the start.
    """

    def __init__(self, channels: int, drop_path: float, layer_scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + self.drop_path(y.permute(0, 3, 1, 2))


@MODELS.register_module()
class ConvNeXt(BaseModule):
    """Levels of strides 4, 8, 16 and 32, each with a layer norm.

    Args:
        in_channels: Number of channels of the images.
        depths: Number of blocks of each stage; these defaults are ConvNeXt-L.
        channels: Width of each stage.
        drop_path_rate: Probability of skipping the last block; it rises from 0 at the first block.
        layer_scale: Scale of the blocks at the start.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        depths: Sequence[int] = (3, 3, 27, 3),
        channels: Sequence[int] = (192, 384, 768, 1536),
        drop_path_rate: float = 0.0,
        layer_scale: float = 1e-6,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        stem = nn.Sequential(nn.Conv2d(in_channels, channels[0], 4, 4), _norm(channels[0]))
        self.downsample_layers = nn.ModuleList([stem])
        for width, following in zip(channels[:-1], channels[1:], strict=True):
            layer = nn.Sequential(_norm(width), nn.Conv2d(width, following, 2, 2))
            self.downsample_layers.append(layer)
        last = max(sum(depths) - 1, 1)
        rates = (drop_path_rate * i / last for i in range(sum(depths)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width, next(rates), layer_scale) for _ in range(depth)))
            for depth, width in zip(depths, channels, strict=True)
        )
        for i, width in enumerate(channels):
            self.add_module(f'norm{i}', _norm(width))

    def init_weights(self) -> None:
        """Weights from ``init_cfg``, else truncated normal numbers, and biases of 0."""
        if self.init_cfg is not None:
            super().init_weights()
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to the levels (N, C_i, H_i, W_i)."""
        levels = []
        for i, (down, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = stage(down(x))
            levels.append(self.get_submodule(f'norm{i}')(x))
        return tuple(levels)


def _norm(channels: int) -> ChannelNorm:
    return ChannelNorm(channels, eps=1e-6)
