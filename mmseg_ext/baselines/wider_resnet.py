"""WiderResNet-38, dilated to output stride 8, and a ResNet that also returns its stem.

Wu, Shen, van den Hengel, "Wider or Deeper", arXiv 1611.10080, in the form "A2" of
mapillary/inplace_abn (BSD-3), on which Gated-SCNN was released.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmseg.models.backbones import ResNetV1c
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import UserError

BLOCKS = (3, 3, 6, 3, 1, 1)  # of the modules 2 to 7
WIDTHS = ((2, 2), (4, 4), (8, 8), (8, 16), (8, 16, 32), (16, 32, 64))  # of the base's channels
STRIDES = (1, 1, 2, 1, 1, 1)
DILATIONS = (1, 1, 1, 2, 4, 4)
DROPOUTS = (0.0, 0.0, 0.0, 0.0, 0.3, 0.5)
POOLED = (2, 3)  # modules with a max pooling before them


class PreActBlock(nn.Module):
    """Norms and ReLUs before two 3x3 convolutions, or before 1x1, 3x3 and 1x1; none after the sum.

    Args:
        in_channels: Of the input.
        channels: Of the two or three convolutions.
        stride: Of the first.
        dilation: Of the 3x3 convolutions.
        dropout_ratio: Of whole channels, before the last convolution.
        norm_cfg: Of the norms.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        *,
        stride: int,
        dilation: int,
        dropout_ratio: float,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        kernels = (3, 3) if len(channels) == 2 else (1, 3, 1)
        width = in_channels
        self.norms, self.convs = nn.ModuleList(), nn.ModuleList()
        for i, (out, kernel) in enumerate(zip(channels, kernels, strict=True)):
            spread = dilation if kernel == 3 else 1
            self.norms.append(build_norm_layer(norm_cfg, width)[1])
            self.convs.append(
                nn.Conv2d(
                    width,
                    out,
                    kernel,
                    stride=1 if i else stride,
                    padding=kernel // 2 * spread,
                    dilation=spread,
                    bias=False,
                )
            )
            width = out
        self.dropout = nn.Dropout2d(dropout_ratio)
        self.project: nn.Module | None = None
        if stride != 1 or in_channels != width:
            self.project = nn.Conv2d(in_channels, width, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        active = F.relu(self.norms[0](x), inplace=True)
        shortcut = x if self.project is None else self.project(active)
        x = self.convs[0](active)
        del active
        for norm, conv in zip(self.norms[1:], self.convs[1:], strict=True):
            x = F.relu(norm(x), inplace=True)
            x = conv(self.dropout(x) if conv is self.convs[-1] else x)
        return x + shortcut


@MODELS.register_module()
class WiderResNetA2(BaseModule):
    """Seven modules of growing width: strides 1, 2, 4 and then 8.

    Their channels are 64, 128, 256, 512, 1024, 2048 and 4096. The first is a bare convolution of
    the image; sums of residual blocks leave the others without a norm or activation.

    Args:
        out_indices: Numbers of the modules to return, 1 to 7.
        in_channels: Of the image.
        base_channels: Of the first module; all others grow with it.
        with_cp: Whether training runs the modules 4 to 7 a second time in the backward pass, to
            save memory.
        norm_cfg: Of all norms.
        init_cfg: As for the host's backbones.

    Raises:
        ValueError: a number in ``out_indices`` is none of 1 to 7.
    """

    def __init__(
        self,
        *,
        out_indices: Sequence[int] = (1, 2, 3, 4, 7),
        in_channels: int = 3,
        base_channels: int = 64,
        with_cp: bool = False,
        norm_cfg: dict | None = None,
        init_cfg: Any = None,
    ) -> None:
        if not set(out_indices) <= set(range(1, 8)):
            raise UserError(f'out_indices={out_indices} must be numbers of modules, 1 to 7')
        super().__init__(init_cfg or dict(type='Kaiming', layer='Conv2d'))
        self.out_indices = tuple(out_indices)
        self.with_cp = with_cp
        self.conv1 = nn.Conv2d(in_channels, base_channels, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        width = base_channels
        for i, widths in enumerate(WIDTHS[: max(self.out_indices) - 1]):
            channels = [base_channels * factor for factor in widths]
            blocks = []
            for block in range(BLOCKS[i]):
                blocks.append(
                    PreActBlock(
                        width,
                        channels,
                        stride=1 if block else STRIDES[i],
                        dilation=DILATIONS[i],
                        dropout_ratio=DROPOUTS[i],
                        norm_cfg=norm_cfg or dict(type='BN'),
                    )
                )
                width = channels[-1]
            self.add_module(f'mod{i + 2}', nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to the levels of ``out_indices``; strides round sizes up."""
        x = self.conv1(x)
        levels = {1: x}
        for number in range(2, max(self.out_indices) + 1):
            module = getattr(self, f'mod{number}')
            x = self.pool(x) if number in POOLED else x
            if self.with_cp and number >= 4 and torch.is_grad_enabled():
                x = checkpoint(module, x, use_reentrant=False)
            else:
                x = module(x)
            if number in self.out_indices:
                levels[number] = x
        return tuple(levels[number] for number in self.out_indices)


@MODELS.register_module()
class StemResNet(ResNetV1c):
    """``ResNetV1c`` that returns its stem, of stride 2, before the levels of its stages."""

    host_counterpart = dict(type='ResNetV1c')
    stem_levels = 1  # before the levels of the host's network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to the stem (N, C, H / 2, W / 2) and the levels of ``out_indices``.

        Sizes are rounded up.
        """
        stem = self.stem(x)
        levels = [stem]
        x = self.maxpool(stem)
        for i, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                levels.append(x)
        return tuple(levels)
