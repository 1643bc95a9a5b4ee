"""FPN with a bottom-up path (Section 3.1)."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleList, caffe2_xavier_init
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError
from .blocks import GROUP_NORM, check_groups

RELU = MappingProxyType(dict(type='ReLU'))
FLOWS = ('panet', 'mmdet')


@MODELS.register_module()
class PANetFPN(BaseModule):
    """Levels of a backbone to levels of one width, first top-down, then bottom-up.

    The names of the weights are those of the host's ``FPN`` and of mmdet's ``PAFPN``.

    Args:
        in_channels: Widths of the levels of the backbone, fine to coarse.
        out_channels: Width D of all outputs.
        num_outs: Number of outputs; those beyond the levels of the backbone are the last level,
            subsampled by 2.
        norm_cfg: Norm behind all convolutions; None for none.
        act_cfg: Activation of the bottom-up path. The released code has it with the norm only, the
            paper always.
        bottom_up: Whether there is a bottom-up path; without it this is the host's ``FPN``.
        flow: 'panet', where a step of the path reads the finished finer level, as released, or
            'mmdet', where it reads that level before its last convolution. The latter is for
            weights of mmdet's ``PAFPN``, with ``norm_cfg=None`` and ``act_cfg=None``.

    Raises:
        UserError: Fewer outputs than levels, an unknown flow, or a width that the groups of the
            norm do not divide.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        out_channels: int = 256,
        num_outs: int = 4,
        norm_cfg: Mapping | None = GROUP_NORM,
        act_cfg: Mapping | None = RELU,
        bottom_up: bool = True,
        flow: str = 'panet',
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_outs < len(in_channels):
            raise UserError(f'num_outs={num_outs} must be at least the {len(in_channels)} levels')
        if flow not in FLOWS:
            raise UserError(f'flow={flow!r} is unknown: choose from {", ".join(FLOWS)}')
        check_groups('out_channels', out_channels, norm_cfg)
        self.in_channels, self.out_channels = list(in_channels), out_channels
        self.num_outs, self.flow = num_outs, flow
        norm = None if norm_cfg is None else dict(norm_cfg)
        act = None if act_cfg is None else dict(act_cfg)

        def conv(channels: int, size: int, **kwargs: Any) -> ConvModule:
            padding = size // 2
            return ConvModule(
                channels,
                out_channels,
                size,
                padding=padding,
                norm_cfg=norm,
                inplace=False,
                **kwargs,
            )

        self.lateral_convs = ModuleList(conv(width, 1, act_cfg=None) for width in in_channels)
        self.fpn_convs = ModuleList(conv(out_channels, 3, act_cfg=None) for _ in in_channels)
        steps = len(in_channels) - 1 if bottom_up else 0
        path = dict(act_cfg=act, bias=True)  # as released, although a norm follows
        self.downsample_convs = ModuleList(
            conv(out_channels, 3, stride=2, **path) for _ in range(steps)
        )
        self.pafpn_convs = ModuleList(conv(out_channels, 3, **path) for _ in range(steps))

    def init_weights(self) -> None:
        """Initialises convolutions uniformly between +-sqrt(3 / fan_in), Caffe2's Xavier."""
        super().init_weights()  # ConvModule initialises its convolution in another way
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                caffe2_xavier_init(module)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels (N, C_i, H_i, W_i) to ``num_outs`` levels (N, D, H_i, W_i).

        Raises:
            UserError: The number of levels is not that of ``in_channels``.
        """
        if len(inputs) != len(self.in_channels):
            raise UserError(
                f'PANetFPN got {len(inputs)} levels, but in_channels={self.in_channels}: give one '
                'width for each level of the backbone'
            )
        x = self.lateral_convs[-1](inputs[-1])
        levels = [self.fpn_convs[-1](x)]
        for i in range(len(inputs) - 2, -1, -1):
            lateral = self.lateral_convs[i](inputs[i])
            x = lateral + F.interpolate(x, lateral.shape[2:], mode='nearest')
            levels.insert(0, self.fpn_convs[i](x))
        levels = self._bottom_up(levels)
        while len(levels) < self.num_outs:
            levels.append(levels[-1][..., ::2, ::2])
        return tuple(levels)

    def _bottom_up(self, levels: list[Tensor]) -> list[Tensor]:
        """Levels P_i of the FPN to N_i, fine to coarse."""
        results, source = levels[:1], levels[0]
        for level, down, out in zip(
            levels[1:], self.downsample_convs, self.pafpn_convs, strict=False
        ):
            total = down(source) + level
            results.append(out(total))
            source = results[-1] if self.flow == 'panet' else total
        return results if len(self.pafpn_convs) else levels
