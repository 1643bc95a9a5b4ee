"""PP-LiteSeg: A Superior Real-Time Semantic Segmentation Model.

Peng et al., arXiv 2204.02681. It goes on the host's ``STDCNet``. Written from what is known of the
paper, whose text was not at hand: widths and kernel sizes are not checked against it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from ..errors import UserError
from ..layers.head_defaults import released_defaults
from ..layers.levels import require_levels, resize


class SimplePyramidPooling(nn.Module):
    """Sum of a map's averages over bins, each after a 1x1 convolution.

    Args:
        in_channels: Width of the map.
        channels: Width of the result.
        bins: Number of rows and columns of the bins of each average.
        norm_cfg: Norm.
        align_corners: Whether resizing aligns corners.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        bins: Sequence[int],
        norm_cfg: Mapping | None,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.bins = bins
        self.align_corners = align_corners
        # one bin per image: batch norm needs two values in training
        self.convs = nn.ModuleList(
            ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg if n > 1 else None) for n in bins
        )
        self.out_conv = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, h, w) to (N, C, h, w)."""
        total: Any = 0
        for n, conv in zip(self.bins, self.convs, strict=True):
            y = conv(adaptive_avg_pool2d(x, n))
            total = total + resize(y, x.shape[2:], self.align_corners)
        return self.out_conv(total)


class AttentionFusion(nn.Module):
    """Mixture of a coarse and a fine map by a weight for each pixel.

    Args:
        in_channels: Width of the fine map.
        channels: Width of the coarse map.
        out_channels: Width of the result.
        norm_cfg: Norm.
        align_corners: Whether resizing aligns corners.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        norm_cfg: Mapping | None,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.fine_conv = ConvModule(in_channels, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.attention = ConvModule(
            4, 1, 3, padding=1, norm_cfg=norm_cfg, act_cfg=dict(type='Sigmoid')
        )
        self.out_conv = ConvModule(channels, out_channels, 3, padding=1, norm_cfg=norm_cfg)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Coarse (N, C, h, w) and fine (N, C_in, H, W) to (N, C_out, H, W)."""
        fine = self.fine_conv(fine)
        coarse = resize(coarse, fine.shape[2:], self.align_corners)
        statistics = [f(x) for x in (coarse, fine) for f in (_mean, _max)]
        weight = self.attention(torch.cat(statistics, dim=1))
        return self.out_conv(coarse * weight + fine * (1 - weight))


def _mean(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)


def _max(x: Tensor) -> Tensor:
    return x.amax(1, keepdim=True)


@MODELS.register_module()
class PPLiteSegHead(BaseDecodeHead):
    """Decoder of PP-LiteSeg: pooled context of the coarsest level, fused with the finer levels.

    Args:
        in_channels: Width of every level, finest first.
        in_index: Their positions among the levels of the backbone.
        decoder_channels: Width of the decoder at each level, finest first; (64, 96, 128) is
            PP-LiteSeg-B, (32, 64, 128) PP-LiteSeg-T.
        channels: Width of the last convolution; None for that of the finest level.
        bins: Bins of the pooled context.
        **kwargs: Arguments of the host's ``BaseDecodeHead``.

    Raises:
        UserError: One level only, or another number of ``decoder_channels`` than of levels.
    """

    reads_levels = True

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        in_index: Sequence[int] | int = (0, 1, 2),
        decoder_channels: Sequence[int] = (64, 96, 128),
        channels: int | None = None,
        bins: Sequence[int] = (1, 2, 4),
        **kwargs: Any,
    ) -> None:
        require_levels(self, in_channels)
        if len(decoder_channels) != len(in_channels):
            raise UserError(
                f'decoder_channels={list(decoder_channels)} must have a width for each of the '
                f'{len(in_channels)} levels'
            )
        channels = decoder_channels[0] if channels is None else channels
        kwargs |= dict(input_transform='multiple_select', in_index=in_index)
        super().__init__(in_channels, channels, **released_defaults(kwargs, dropout_ratio=0.0))
        common = dict(norm_cfg=self.norm_cfg, align_corners=self.align_corners)
        self.context = SimplePyramidPooling(in_channels[-1], decoder_channels[-1], bins, **common)
        coarse = list(reversed(decoder_channels))
        self.fusions = nn.ModuleList(
            AttentionFusion(fine, width, following, **common)
            for fine, width, following in zip(
                reversed(in_channels[:-1]), coarse, coarse[1:], strict=False
            )
        )
        self.last_conv = ConvModule(
            decoder_channels[0], channels, 3, padding=1, norm_cfg=self.norm_cfg
        )

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Levels (N, C_i, H_i, W_i), finest first, to logits (N, K, H_0, W_0)."""
        *fine, coarsest = self._transform_inputs(inputs)
        x = self.context(coarsest)
        for fuse, level in zip(self.fusions, reversed(fine), strict=True):
            x = fuse(x, level)
        return self.cls_seg(self.last_conv(x))
