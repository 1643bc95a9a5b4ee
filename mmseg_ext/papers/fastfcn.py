"""FastFCN: Rethinking Dilated Convolution in the Backbone for Semantic Segmentation.

Wu, Zhang, Huang, Liang, Yu, arXiv 1903.11816 (2019). Code: wuhuikai/FastFCN (MIT).

The backbone keeps its output stride of 32. A neck makes a map of stride 8 from its last three
levels, for any head that reads such a map. Differs from the released code:

- the encoding never forms its tensor of pixels x codes x channels;
- the set of classes in each image is computed on the device, without a loop over images;
- the layer that predicts this set runs only in training.

With ``align_corners=True`` the host's ``JPU`` and ``PSPHead`` compute the released function. Its
``EncHead`` and ``ASPPHead`` compute another function.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmseg.models.decode_heads.aspp_head import ASPPHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.decode_heads.enc_head import EncModule
from mmseg.models.necks.jpu import JPU
from mmseg.models.utils import Encoding
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..errors import UserError
from ..layers.head_defaults import released_defaults
from ..layers.levels import resize
from ..layers.precision import at_least_float32
from ..layers.pytorch_init import PyTorchInit
from ..segmentors.protocols import Maps, Point

Levels = tuple[Tensor, ...]


class JointUpsampler(PyTorchInit):
    """Base of necks that make one map of stride 8 from the levels of strides 8, 16 and 32."""

    host_backbone = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))  # in place of the neck

    in_channels: Sequence[int]
    branch_names: Sequence[str]  # of equal groups of the map's channels

    def forward(self, inputs: Sequence[Tensor]) -> Levels:
        """Replaces the last of the levels (N, C_i, H_i, W_i) by the map.

        The other levels stay for auxiliary heads, so that heads keep their ``in_index``.

        Raises:
            UserError: The last levels do not have ``in_channels``.
        """
        levels = tuple(inputs[-len(self.in_channels) :])
        channels = tuple(x.shape[1] for x in levels)
        if channels != tuple(self.in_channels):
            raise UserError(
                f'{type(self).__name__} got levels of {channels} channels, expected '
                f'{tuple(self.in_channels)}: set its in_channels to the channels of the last three '
                'levels of the backbone, and out_indices=(0, 1, 2, 3) in the backbone'
            )
        return (*inputs[:-1], self.merge(levels))

    @abstractmethod
    def merge(self, levels: Levels) -> Tensor:
        """The three levels to the map (N, 4 mid_channels, H, W), of the first level's size."""

    def explain(self, inputs: Sequence[Tensor]) -> tuple[Levels, Maps]:
        """The levels that ``forward`` returns; the coarsest level and the branches of the map."""
        levels = self(inputs)
        branches = levels[-1].chunk(len(self.branch_names), dim=1)
        maps = dict(zip(self.branch_names, branches, strict=True))
        return levels, dict(stride_32=inputs[-1], **maps)


@MODELS.register_module()
class FastFCNJPU(JointUpsampler, JPU):
    """Joint pyramid upsampling (Sec. 3.3): the host's ``JPU``, whose weights load.

    Differs from it: the other levels are kept, levels that do not fit are refused in a sentence,
    and it has ``explain``. It does not warn as the host's ``resize`` does, which does not compile.

    Args:
        in_channels: Channels of the levels of strides 8, 16 and 32.
        mid_channels: Channels of each of the four branches (512 in the paper).
        align_corners: Whether upsampling aligns the corners.
        **kwargs: Arguments of the host's ``JPU``: ``dilations``, one for each branch, and
            ``norm_cfg``.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (512, 1024, 2048),
        mid_channels: int = 512,
        *,
        align_corners: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(tuple(in_channels), mid_channels, align_corners=align_corners, **kwargs)
        self.branch_names = [f'dilation_{rate}' for rate in self.dilations]

    def merge(self, levels: Levels) -> Tensor:
        """The three levels to the map (N, 4 mid_channels, H, W), of the first level's size."""
        feats = [conv(x) for conv, x in zip(self.conv_layers, levels, strict=True)]
        x = torch.cat([resize(x, feats[0].shape[2:], self.align_corners) for x in feats], dim=1)
        return torch.cat([branch(x) for branch in self.dilation_layers], dim=1)


class JointUpsamplingModule(nn.Module):
    """Upsamples a coarse level and joins it with a fine one; a step of JPU-X.

    Args:
        low_channels: Channels of the coarse level.
        high_channels: Channels of the fine level.
        channels: Channels of the upsampled level and of each branch; a multiple of 32.
        dilations: Dilations of the three branches.
        align_corners: Whether upsampling aligns the corners.
        norm_cfg: Norm of the two first convolutions; the branches have group norm.
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        channels: int,
        dilations: Sequence[int],
        *,
        align_corners: bool,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.conv_low = ConvModule(low_channels, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.conv_high = ConvModule(high_channels, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.branches = nn.ModuleList(
            DepthwiseSeparableConvModule(
                2 * channels,
                channels,
                3,
                padding=rate,
                dilation=rate,
                norm_cfg=dict(type='GN', num_groups=32),
                dw_act_cfg=None,
            )
            for rate in dilations
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Levels (N, low, h, w) and (N, high, H, W) to (N, 4 channels, H, W)."""
        high = self.conv_high(high)
        low = resize(self.conv_low(low), high.shape[2:], self.align_corners)
        levels = torch.cat([low, high], dim=1)
        return torch.cat([low, *(branch(levels) for branch in self.branches)], dim=1)


@MODELS.register_module()
class JPUX(JointUpsampler):
    """JPU-X, the second neck of the released code: upsamples in two steps, with group norms.

    It was added in 2020 and is not in the paper.

    Args:
        in_channels: Channels of the levels of strides 8, 16 and 32.
        mid_channels: A quarter of the channels of the map; a multiple of 64.
        align_corners: Whether upsampling aligns the corners.
        norm_cfg: Norm of the convolutions on the levels; the branches have group norm.

    Raises:
        UserError: ``mid_channels`` is no multiple of 64, or ``in_channels`` are not three.
    """

    branch_names = ('upsampled', 'dilation_2', 'dilation_4', 'dilation_8')

    def __init__(
        self,
        in_channels: Sequence[int] = (512, 1024, 2048),
        mid_channels: int = 512,
        *,
        align_corners: bool = True,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if len(in_channels) != 3:
            raise UserError(
                f'JPUX reads three levels, got in_channels={tuple(in_channels)}: give the channels '
                'at strides 8, 16 and 32'
            )
        if mid_channels % 64:
            raise UserError(
                f'JPUX got mid_channels={mid_channels}, but its group norms split half of '
                'them into 32 groups: take a multiple of 64'
            )
        self.in_channels = in_channels
        fine, middle, coarse = in_channels
        half = mid_channels // 2
        common: Any = dict(align_corners=align_corners, norm_cfg=norm_cfg or dict(type='BN'))
        self.step_1 = JointUpsamplingModule(middle, fine, half, (1, 2, 4), **common)
        self.step_2 = JointUpsamplingModule(coarse, 4 * half, mid_channels, (2, 4, 8), **common)

    def merge(self, levels: Levels) -> Tensor:
        """The three levels to the map (N, 4 mid_channels, H, W), of the first level's size."""
        fine, middle, coarse = levels
        return self.step_2(coarse, self.step_1(middle, fine))


class LeanEncoding(Encoding):
    """The host's ``Encoding``, without its tensors of pixels x codes x channels.

    Squared distances ``|x|^2 - 2 x.c + |c|^2`` and sums of residuals ``a^T x - (sum of a) c`` are
    matrix products, in float32.
    """

    def assign(self, pixels: Tensor) -> Tensor:
        """Weights (N, L, codes) of pixels (N, L, D) over the codes; they sum to 1."""
        squared = pixels.square().sum(2, keepdim=True) + self.codewords.square().sum(1)
        squared = squared - 2 * pixels @ self.codewords.T
        return (self.scale * squared).softmax(2)  # the learnt scales start below 0

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, D, H, W) to weighted sums of their residuals to each code, (N, codes, D)."""
        with torch.autocast(x.device.type, enabled=False):
            pixels = at_least_float32(x).flatten(2).mT
            assignment = self.assign(pixels)
            return assignment.mT @ pixels - assignment.sum(1)[..., None] * self.codewords


def class_presence(label: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Classes in the labels (N, H, W) of each image: (N, K), float, 1 for a class that occurs."""
    # Other values go to two spare columns, the first and the last.
    index = label.long().clamp(-1, num_classes).add_(1).flatten(1)
    presence = torch.zeros(len(label), num_classes + 2, device=label.device)
    presence = presence.scatter_(1, index, 1.0)[:, 1:-1]
    if 0 <= ignore_index < num_classes:
        presence[:, ignore_index] = 0
    return presence


@MODELS.register_module()
class FastFCNEncHead(PyTorchInit, BaseDecodeHead):
    """EncNet's head (arXiv 1803.08904): scales channels by an encoding of the image's pixels.

    Differs from the host's ``EncHead``: it reads one level, its bottleneck is 1x1 as in FastFCN (a
    ninth of the cost), it uses ``LeanEncoding``, and in inference it returns only logits.

    Args:
        channels: Channels of the features (512 as released).
        num_codes: Number of codes.
        se_weight: Factor of the loss of the set of classes in an image (Sec. 3.1 of EncNet); with 0
            the head has no layer for it.
        **kwargs: Arguments of the host's ``BaseDecodeHead``.
    """

    explains_pixels = False
    training_parts = ('se_layer',)
    host_counterpart = dict(type='EncHead')

    def __init__(
        self, *, channels: int = 512, num_codes: int = 32, se_weight: float = 0.2, **kwargs: Any
    ) -> None:
        super().__init__(channels=channels, **released_defaults(kwargs, align_corners=True))
        layers = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.bottleneck = ConvModule(self.in_channels, channels, 1, **layers)
        self.enc_module = EncModule(channels, num_codes, **layers)
        self.enc_module.encoding[0] = LeanEncoding(channels, num_codes)
        self.se_weight = se_weight
        self.se_layer = nn.Linear(channels, self.num_classes) if se_weight else None

    def forward(self, inputs: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Levels (N, C_i, H_i, W_i) to logits (N, K, H, W).

        In training with ``se_weight`` a tuple: these logits, and (N, K) of the set of classes.
        """
        code, feats = self.enc_module(self.bottleneck(self._transform_inputs(inputs)))
        logits = self.cls_seg(feats)
        if self.training and self.se_layer is not None:
            return logits, self.se_layer(code)
        return logits

    def loss_by_feat(self, seg_logits: Any, batch_data_samples: list) -> dict:
        """Losses of the output of ``forward`` in training, whose logits may have any size."""
        if self.se_layer is None:
            return super().loss_by_feat(seg_logits, batch_data_samples)
        logits, classes = seg_logits
        losses = super().loss_by_feat(logits, batch_data_samples)
        label = self._stack_batch_gt(batch_data_samples).squeeze(1)
        presence = class_presence(label, self.num_classes, self.ignore_index)
        se = F.binary_cross_entropy_with_logits(classes.float(), presence)
        return losses | dict(loss_se=self.se_weight * se)

    @torch.no_grad()
    def explain(
        self,
        levels: Sequence[Tensor],
        *,
        point: Point | None = None,
        label: Tensor | None = None,
        **side_inputs: Any,
    ) -> Maps:
        """Maps of the encoding, for levels (N, C_i, H_i, W_i).

        Returns:
            - ``code`` (N, 1, H, W): number of the code with the largest weight for a pixel.
            - ``gate`` (N, D, 1, 1): factor of each channel, in (0, 1).
            - ``class_probability`` (N, K, 1, 1): probability that the image holds a class.
        """
        x = self.bottleneck(self._transform_inputs(levels))
        pixels = self.enc_module.encoding_project(x)
        code = self.enc_module.encoding[0].assign(pixels.flatten(2).mT).argmax(2)  # (N, L)
        pooled = self.enc_module(x)[0]
        maps = dict(
            # As floats, because integer maps are drawn as classes.
            code=code.view(len(x), 1, *x.shape[2:]).to(x.dtype),
            gate=self.enc_module.fc(pooled)[..., None, None],
        )
        if self.se_layer is not None:
            maps['class_probability'] = self.se_layer(pooled).sigmoid()[..., None, None]
        return maps


@MODELS.register_module()
class FastFCNASPPHead(PyTorchInit, ASPPHead):
    """DeepLabV3's head as released with FastFCN.

    Differs from the host's ``ASPPHead``: a 1x1 convolution and a dropout come before the 3x3
    convolution of the bottleneck.

    Args:
        channels: Channels of every convolution (256 as released).
        dilations: Dilations of the pyramid, beside the pooled image; 1 is a 1x1 convolution.
        pyramid_dropout: Probability with which a whole channel is dropped after the 1x1
            convolution.
        **kwargs: Arguments of the host's ``BaseDecodeHead``.
    """

    host_counterpart = dict(type='ASPPHead', dilations=(1, 12, 24, 36))

    def __init__(
        self,
        *,
        channels: int = 256,
        dilations: Sequence[int] = (1, 12, 24, 36),
        pyramid_dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            dilations, channels=channels, **released_defaults(kwargs, align_corners=True)
        )
        layers = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.bottleneck = nn.Sequential(
            ConvModule((len(dilations) + 1) * channels, channels, 1, **layers),
            nn.Dropout2d(pyramid_dropout),
            ConvModule(channels, channels, 3, padding=1, **layers),
        )
