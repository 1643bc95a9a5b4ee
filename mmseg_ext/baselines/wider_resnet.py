"""WiderResNet-38, dilated to output stride 8, and a ResNet that also returns its stem.

Wu, Shen, van den Hengel, "Wider or Deeper", arXiv 1611.10080, in the form "A2" of
mapillary/inplace_abn (BSD-3), on which released Gated-SCNN is based.
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

from ..errors import UserError
from ..layers.recomputing import run_twice

BLOCKS = (3, 3, 6, 3, 1, 1)  # number of blocks in the modules 2 to 7
WIDTHS = ((2, 2), (4, 4), (8, 8), (8, 16), (8, 16, 32), (16, 32, 64))  # times base_channels
STRIDES = (1, 1, 2, 1, 1, 1)
DILATIONS = (1, 1, 1, 2, 4, 4)
DROPOUTS = (0.0, 0.0, 0.0, 0.0, 0.3, 0.5)
POOLED = (2, 3)  # modules after a max pooling


class PreActBlock(nn.Module):
    """Residual block with norm and ReLU before each convolution, and none after the sum.

    The convolutions are 3x3 and 3x3, or 1x1, 3x3 and 1x1.

    Args:
        in_channels: Channels of the input.
        channels: Output channels of the two or three convolutions.
        stride: Stride of the first convolution.
        dilation: Dilation of the 3x3 convolutions.
        dropout_ratio: Probability of dropping a channel before the last convolution.
        norm_cfg: Type and settings of the norms.
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
        """(N, C, H, W) to (N, C_out, H / stride, W / stride), rounded up."""
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
    """Backbone of seven modules with growing width and strides 1, 2, 4, 8, 8, 8 and 8.

    Their channels are 64, 128, 256, 512, 1024, 2048 and 4096. The first module is a convolution of
    the image, the others consist of residual blocks. No norm or activation follows a module.

    Args:
        out_indices: Numbers of the modules whose outputs are returned, 1 to 7.
        in_channels: Channels of the image.
        base_channels: Channels of the first module; the others are multiples of it.
        with_cp: Whether training runs the modules 4 to 7 again in the backward pass, which saves
            memory.
        norm_cfg: Type and settings of all norms.
        init_cfg: Initialisation, as in the host's backbones.

    Raises:
        UserError: A number in ``out_indices`` is not in 1 to 7.
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
        """Images (N, 3, H, W) to the outputs of ``out_indices``; sizes are rounded up."""
        x = self.conv1(x)
        levels = {1: x}
        for number in range(2, max(self.out_indices) + 1):
            module = getattr(self, f'mod{number}')
            x = self.pool(x) if number in POOLED else x
            if self.with_cp and number >= 4 and torch.is_grad_enabled():
                x = run_twice(module, x)
            else:
                x = module(x)
            if number in self.out_indices:
                levels[number] = x
        return tuple(levels[number] for number in self.out_indices)


@MODELS.register_module()
class StemResNet(ResNetV1c):
    """``ResNetV1c`` that also returns the output of its stem (stride 2), as the first level."""

    host_counterpart = dict(type='ResNetV1c')
    stem_levels = 1  # before the levels of the host's network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to the stem's map and the levels of ``out_indices``.

        The stem's map is (N, C, H / 2, W / 2), rounded up.
        """
        stem = self.stem(x)
        levels = [stem]
        x = self.maxpool(stem)
        for i, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                levels.append(x)
        return tuple(levels)
