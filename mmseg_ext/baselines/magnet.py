"""OCRNet and FPN as in VinAIResearch/MagNet (AGPL-3.0; this module contains no code of it).

Yuan, Chen, Wang, arXiv 1909.11065; Lin et al., "Feature Pyramid Networks for Object Detection",
arXiv 1612.03144. The top-down path of the FPN is the host's ``FPN`` with
``upsample_cfg=dict(mode='bilinear', align_corners=False)``. The head differs from the host's
``FPNHead``, which adds levels and has norms and ReLUs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..layers.head_defaults import released_defaults
from ..layers.levels import require_levels, resize
from ..layers.pytorch_init import PyTorchInit
from .ocr_net_head import OCRNetHead


@MODELS.register_module()
class MagNetOCRHead(OCRNetHead):
    """``OCRNetHead`` that predicts a weighted mean of its logits z and the soft regions' logits a.

    The mean is (z + aux_share a) / (1 + aux_share).

    Args:
        aux_share: Weight of the soft regions' logits (0.4 as released).
        align_corners: Whether all resizing aligns corners.
        **kwargs: Arguments of ``OCRNetHead``.
    """

    def __init__(
        self, *, aux_share: float = 0.4, align_corners: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(align_corners=align_corners, **kwargs)
        self.aux_share = aux_share

    def forward(self, inputs: list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Levels (N, C_i, H_i, W_i) to logits (N, K, H_0, W_0).

        In training it returns the logits and the soft regions' logits.
        """
        logits, aux = self.result_and_regions(inputs)
        if self.training:
            return logits, aux
        return (logits + self.aux_share * aux) / (1 + self.aux_share)


@MODELS.register_module()
class MagNetFPNHead(PyTorchInit, BaseDecodeHead):
    """Resizes the levels of a pyramid to the finest and classifies them by a 3x3 convolution.

    Args:
        in_channels: Channels of every level, finest first.
        in_index: Indices of the levels in the neck's output.
        level_channels: Channels of each level after a 3x3 convolution (128 as released).
        **kwargs: Arguments of the host's ``BaseDecodeHead``.

    Raises:
        UserError: ``in_channels`` is a single number.
    """

    reads_levels = True
    host_counterpart = dict(type='FPNHead', channels=128, feature_strides=[4, 8, 16, 32])

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        in_index: Sequence[int] | int = (0, 1, 2, 3),
        level_channels: int = 128,
        **kwargs: Any,
    ) -> None:
        require_levels(self, in_channels)
        kwargs |= dict(input_transform='multiple_select', in_index=in_index)
        channels = level_channels * len(in_channels)
        super().__init__(in_channels, channels, **released_defaults(kwargs, dropout_ratio=0.0))
        self.convs = nn.ModuleList(nn.Conv2d(n, level_channels, 3, padding=1) for n in in_channels)
        self.conv_seg = nn.Conv2d(channels, self.out_channels, 3, padding=1)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Levels (N, C_i, H_i, W_i), finest first, to logits (N, K, H_0, W_0)."""
        levels = self._transform_inputs(inputs)
        maps = [conv(x) for conv, x in zip(self.convs, levels, strict=True)]
        size = maps[0].shape[2:]
        maps = [resize(x, size, self.align_corners) for x in reversed(maps)]
        return self.cls_seg(torch.cat(maps, dim=1))
