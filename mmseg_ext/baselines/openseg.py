"""DeepLabV3 and OCRNet as in openseg.pytorch (MIT), on which released pixel contrast is based.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv 1706.05587;
Yuan et al., arXiv 1909.11065.
"""

from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.backbones import ResNetV1c
from mmseg.models.decode_heads import ASPPHead
from mmseg.registry import MODELS
from torch import Tensor

from ..layers.head_defaults import CROSS_ENTROPY
from .ocr_net_head import OCRNetHead


@MODELS.register_module()
class OpensegResNet(ResNetV1c):
    """``ResNetV1c`` with max pooling that rounds sizes up, and 128 channels after the deep stem."""

    host_counterpart = dict(type='ResNetV1c')

    def __init__(self, *, stem_channels: int = 128, **kwargs: Any) -> None:
        super().__init__(stem_channels=stem_channels, **kwargs)
        self.maxpool.ceil_mode = True


@MODELS.register_module()
class OpensegASPPHead(ASPPHead):
    """``ASPPHead`` with a further 3x3 convolution and norm, without ReLU, before the classifier.

    Args:
        channels: Channels of every branch (512 as released).
        dilations: Dilations of the branches.
        dropout_ratio: Probability of dropping a channel before the classifier (0 as released).
        **kwargs: Arguments of the host's ``ASPPHead``.
    """

    host_counterpart = dict(type='ASPPHead', dilations=(1, 12, 24, 36))

    def __init__(
        self,
        *,
        channels: int = 512,
        dilations: tuple[int, ...] = (1, 12, 24, 36),
        dropout_ratio: float = 0.0,
        **kwargs: Any,
    ) -> None:
        kwargs = dict(loss_decode=dict(CROSS_ENTROPY)) | kwargs
        super().__init__(
            channels=channels, dilations=dilations, dropout_ratio=dropout_ratio, **kwargs
        )
        self.refine = ConvModule(
            channels, channels, 3, padding=1, norm_cfg=self.norm_cfg, act_cfg=None
        )

    def _forward_feature(self, inputs: list[Tensor]) -> Tensor:
        return self.refine(super()._forward_feature(inputs))


@MODELS.register_module()
class OpensegOCRHead(OCRNetHead):
    """``OCRNetHead`` whose soft regions come from a 3x3 convolution."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width = self.aux_conv.in_channels
        self.aux_conv = ConvModule(
            width, width, 3, padding=1, bias=True, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg
        )

    def _soft_regions(self, levels: list[Tensor]) -> Tensor:
        """Logits of the soft regions, (N, K, H_0, W_0), from all levels."""
        size = levels[0].shape[2:]
        return self.aux_seg(self.aux_conv(torch.cat([self._to_size(x, size) for x in levels], 1)))
