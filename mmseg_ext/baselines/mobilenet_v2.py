"""MobileNetV2 with its last convolution, which the host's backbone omits."""

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmseg.models.backbones import MobileNetV2
from mmseg.registry import MODELS


@MODELS.register_module()
class FullMobileNetV2(MobileNetV2):
    """The host's ``MobileNetV2`` and its last 1x1 convolution, to 1280 channels, as stage 7.

    The convolution has the name ``conv2``, as in weights for ImageNet, so it starts pretrained.

    Args:
        out_indices: Numbers of the stages whose outputs are returned, 0 to 7.
        last_channels: Output channels of the last convolution.
        **kwargs: Arguments of the host's ``MobileNetV2``.
    """

    host_counterpart = dict(type='MobileNetV2')
    top_levels = 1  # after the levels of the host's network

    def __init__(
        self,
        *,
        out_indices: Sequence[int] = (1, 2, 4, 6, 7),
        last_channels: int = 1280,
        **kwargs: Any,
    ) -> None:
        super().__init__(out_indices=[i for i in out_indices if i != 7], **kwargs)
        self.out_indices = out_indices
        settings = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.conv2 = ConvModule(self.in_channels, last_channels, 1, **settings)
        self.layers.append('conv2')
