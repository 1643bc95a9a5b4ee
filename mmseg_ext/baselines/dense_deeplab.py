"""DeepLabV3+ with dense convolutions: a neck of dilated convolutions, and a decoder.

Chen, Zhu, Papandreou, Schroff, Adam: "Encoder-Decoder with Atrous Separable Convolution for
Semantic Image Segmentation", ECCV 2018, arXiv 1802.02611, in the form of Dootmaan/DSRL (MIT).
Differs from the host's ``DepthwiseSeparableASPPHead``: no convolution is depthwise, and the dilated
convolutions are a neck, so that several decoders can read them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.models.decode_heads.aspp_head import ASPPModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..errors import UserError
from ..layers.head_defaults import released_defaults
from ..layers.levels import require_levels, resize
from ..layers.norms import require_several_images


@MODELS.register_module()
class ASPPNeck(BaseModule):
    """Applies atrous spatial pyramid pooling to the coarse level; the fine level is unchanged.

    Args:
        in_channels: Channels of the fine and the coarse level.
        channels: Channels of each branch and of the result.
        dilations: Dilations of the 3x3 branches; a 1x1 convolution and the mean are added.
        dropout_ratio: Probability of dropping a value of the result.
        norm_cfg: Norm after each convolution.
        init_cfg: Initialisation, as in the host's modules.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 2048),
        *,
        channels: int = 256,
        dilations: Sequence[int] = (6, 12, 18),
        dropout_ratio: float = 0.5,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg or dict(type='Kaiming', layer='Conv2d'))
        coarse = in_channels[-1]
        layers = dict(
            conv_cfg=None, norm_cfg=norm_cfg or dict(type='BN'), act_cfg=dict(type='ReLU')
        )
        self.aspp = ASPPModule((1, *dilations), coarse, channels, **layers)
        self.image_pool: Any = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), ConvModule(coarse, channels, 1, **layers)
        )
        self.bottleneck = ConvModule((len(dilations) + 2) * channels, channels, 1, **layers)
        self.dropout = nn.Dropout(dropout_ratio)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Levels (N, C_0, H, W) and (N, C_1, h, w) to the first and (N, channels, h, w)."""
        fine, coarse = inputs
        require_several_images('ASPPNeck', self.image_pool[1].norm, len(coarse))
        mean = self.image_pool(coarse).expand(-1, -1, *coarse.shape[2:])
        return fine, self.dropout(self.bottleneck(torch.cat([*self.aspp(coarse), mean], dim=1)))


class DeepLabDecoder(nn.Module):
    """Fuses a fine and a coarse level by two 3x3 convolutions.

    Args:
        in_channels: Channels of the fine and the coarse level.
        channels: Output channels of the first 3x3 convolution.
        out_channels: Output channels of the second 3x3 convolution.
        fine_channels: Channels of the fine level after a 1x1 convolution.
        norm_cfg: Norm after each convolution.

    Raises:
        UserError: ``in_channels`` has not two entries.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        out_channels: int = 256,
        *,
        fine_channels: int = 48,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        if len(in_channels) != 2:
            raise UserError(
                'the decoder of DeepLabV3+ fuses a fine and a coarse level, got in_channels='
                f'{list(in_channels)}: name two levels by in_channels=[...] and in_index=[...]'
            )
        fine, coarse = in_channels
        self.reduce = ConvModule(fine, fine_channels, 1, norm_cfg=norm_cfg)
        self.convs = nn.Sequential(
            ConvModule(fine_channels + coarse, channels, 3, padding=1, norm_cfg=norm_cfg),
            nn.Dropout(0.5),
            ConvModule(channels, out_channels, 3, padding=1, norm_cfg=norm_cfg),
        )

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(N, C_0, H, W) and (N, C_1, h, w) to (N, out_channels, H, W)."""
        coarse = resize(coarse, fine.shape[2:], align_corners=True)
        return self.convs(torch.cat([coarse, self.reduce(fine)], dim=1))


@MODELS.register_module()
class DenseDeepLabHead(BaseDecodeHead):
    """The decoder of DeepLabV3+ after ``ASPPNeck``.

    Args:
        in_channels: Channels of the fine and the coarse level.
        in_index: Indices of the levels in the neck's output.
        channels: Output channels of both 3x3 convolutions.
        dropout_ratio: Probability of dropping a value before the classifier.
        **kwargs: Arguments of the host's ``BaseDecodeHead``.

    Raises:
        UserError: ``in_channels`` is a single number or has not two entries.
    """

    reads_levels = True

    def __init__(
        self,
        *,
        in_channels: Sequence[int] = (256, 256),
        in_index: Sequence[int] = (0, 1),
        channels: int = 256,
        dropout_ratio: float = 0.1,
        **kwargs: Any,
    ) -> None:
        require_levels(self, in_channels)
        kwargs |= dict(input_transform='multiple_select', in_index=in_index)
        kwargs = released_defaults(
            kwargs,
            align_corners=True,
            loss_decode=dict(type='WeightedCELoss'),
            init_cfg=dict(type='Kaiming', layer='Conv2d'),
        )
        super().__init__(in_channels, channels, dropout_ratio=dropout_ratio, **kwargs)
        if dropout_ratio > 0:
            self.dropout = nn.Dropout(dropout_ratio)  # drops values; the host drops whole channels
        self.decoder = DeepLabDecoder(in_channels, channels, channels, norm_cfg=self.norm_cfg)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Levels (N, C_0, H, W) and (N, C_1, h, w) to logits (N, K, H, W)."""
        return self.cls_seg(self.decoder(*self._transform_inputs(inputs)))
