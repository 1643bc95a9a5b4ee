"""ESPNetv2, a network of depthwise dilated convolutions: backbone and decoder.

Mehta, Rastegari, Shapiro, Hajishirzi: "ESPNetv2: A Light-weight, Power Efficient, and General
Purpose Convolutional Neural Network", CVPR 2019, arXiv 1811.11431. This is its segmentation network
as released in sacmehta/EdgeNets (MIT), on which DSRL is based.

Differs from the released code:

- Inputs may have any size, not only multiples of 16: decoder maps are resized to encoder maps.
- The image for a level is pooled from the image for the level before it.
- An activation that the released down-samplers do not use is omitted.
"""

from collections.abc import Sequence
from math import ceil, gcd
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..errors import UserError
from ..layers.head_defaults import released_defaults
from ..layers.levels import require_levels, resize

WIDTHS = {  # channels of the four levels by width factor
    0.5: (16, 32, 64, 128),
    1.0: (32, 64, 128, 256),
    1.25: (32, 80, 160, 320),
    1.5: (32, 96, 192, 384),
    2.0: (32, 128, 256, 512),
}
POOL_SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)
SMALLEST = 5  # least number of rows and columns of a resized map in the pyramid
KAIMING = [
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
]


def conv_norm(
    in_channels: int, channels: int, kernel_size: int = 1, *, act: bool = True, **kwargs: Any
) -> ConvModule:
    """Convolution with padding that keeps the size at stride 1, norm, and PReLU per channel."""
    act_cfg = dict(type='PReLU', num_parameters=channels) if act else None
    kwargs |= dict(padding=kernel_size // 2, bias=False, act_cfg=act_cfg)
    return ConvModule(in_channels, channels, kernel_size, **kwargs)


def norm_act(channels: int, norm_cfg: dict) -> nn.Sequential:
    """Norm, and PReLU with a slope per channel."""
    return nn.Sequential(build_norm_layer(norm_cfg, channels)[1], nn.PReLU(channels))


def pool_image(x: Tensor) -> Tensor:
    """Average pooling of (N, C, H, W) to half the size, rounded up."""
    return F.avg_pool2d(x, 3, stride=2, padding=1)


class EESP(nn.Module):
    """Parallel depthwise convolutions with growing dilation, whose outputs are added up in turn.

    With the outputs b_i of the branches, the maps b_1, b_1 + b_2, b_1 + b_2 + b_3, ... are
    concatenated and mixed.

    Args:
        in_channels: Channels of the input, a multiple of ``branches``.
        channels: Channels of the output, a multiple of ``branches ** 2``.
        branches: Number of parallel convolutions, with receptive fields of 3, 5, 7, ... pixels.
        receptive_limit: Largest receptive field; branches with a larger field get a field of 3.
        stride: Stride. With 1 there is an activation at the end, and a shortcut if input and output
            have the same channels. 2 has neither and is for a ``DownSampler``.
        norm_cfg: Norm after the convolutions.

    Raises:
        UserError: ``in_channels`` or ``channels`` is no such multiple.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        branches: int = 4,
        receptive_limit: int,
        stride: int = 1,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        if in_channels % branches or channels % branches**2:
            raise UserError(
                f'branches={branches} must divide in_channels={in_channels}, and its square '
                f'channels={channels}'
            )
        width = channels // branches
        fields = sorted(n if n <= receptive_limit else 3 for n in range(3, 3 + 2 * branches, 2))
        self.reduce = conv_norm(in_channels, width, groups=branches, norm_cfg=norm_cfg)
        self.branches = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride, d, dilation=d, groups=width, bias=False)
            for d in ((field - 1) // 2 for field in fields)
        )
        self.fuse = norm_act(channels, norm_cfg)
        self.expand = conv_norm(channels, channels, groups=branches, norm_cfg=norm_cfg, act=False)
        self.act = nn.PReLU(channels) if stride == 1 else None
        self.adds_input = in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, H / stride, W / stride), rounded up."""
        reduced = self.reduce(x)
        maps: list[Tensor] = []
        for branch in self.branches:
            branch_map = branch(reduced)
            maps.append(branch_map + maps[-1] if maps else branch_map)
        out = self.expand(self.fuse(torch.cat(maps, dim=1)))
        if self.act is None:
            return out
        return self.act(out + x if self.adds_input else out)


class DownSampler(nn.Module):
    """Halves the size of features, appends new channels, and adds features of the image.

    The new channels are the output of an ``EESP``.

    Args:
        in_channels: Channels of the input, which average pooling halves in size.
        channels: Channels of the output.
        branches: Number of branches of the ``EESP``.
        receptive_limit: Largest receptive field of the ``EESP``.
        norm_cfg: Norm after the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        branches: int = 4,
        receptive_limit: int,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.eesp = EESP(
            in_channels,
            channels - in_channels,
            branches=branches,
            receptive_limit=receptive_limit,
            stride=2,
            norm_cfg=norm_cfg,
        )
        self.reinforce = nn.Sequential(
            conv_norm(3, 3, 3, norm_cfg=norm_cfg),
            conv_norm(3, channels, norm_cfg=norm_cfg, act=False),
        )
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Features (N, C_in, H, W) and the image, pooled to the result's size, to (N, C, h, w)."""
        halved = torch.cat([pool_image(x), self.eesp(x)], dim=1)
        return self.act(halved + self.reinforce(image))


@MODELS.register_module()
class ESPNetV2(BaseModule):
    """Encoder with four levels of strides 2, 4, 8 and 16.

    Args:
        widen_factor: Width factor: 0.5, 1.0, 1.25, 1.5 or 2.0 (DSRL's released model).
        norm_cfg: Norm after the convolutions.
        init_cfg: Initialisation; by default Kaiming's normal distribution by fan-out, as released.

    Raises:
        UserError: ``widen_factor`` has another value.
    """

    def __init__(
        self,
        widen_factor: float = 2.0,
        *,
        norm_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg or KAIMING)
        if widen_factor not in WIDTHS:
            raise UserError(f'widen_factor={widen_factor} must be one of {list(WIDTHS)}')
        c0, c1, c2, c3 = WIDTHS[widen_factor]
        norm_cfg = norm_cfg or dict(type='BN')
        self.level1 = conv_norm(3, c0, 3, stride=2, norm_cfg=norm_cfg)
        self.level2_0 = DownSampler(c0, c1, receptive_limit=13, norm_cfg=norm_cfg)
        self.level3_0 = DownSampler(c1, c2, receptive_limit=11, norm_cfg=norm_cfg)
        self.level3 = nn.Sequential(
            *(EESP(c2, c2, receptive_limit=9, norm_cfg=norm_cfg) for _ in range(3))
        )
        self.level4_0 = DownSampler(c2, c3, receptive_limit=9, norm_cfg=norm_cfg)
        self.level4 = nn.Sequential(
            *(EESP(c3, c3, receptive_limit=7, norm_cfg=norm_cfg) for _ in range(7))
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images (N, 3, H, W) to features of strides 2, 4, 8, 16, sizes rounded up."""
        quarter = pool_image(pool_image(x))
        eighth = pool_image(quarter)
        level1 = self.level1(x)
        level2 = self.level2_0(level1, quarter)
        level3 = self.level3(self.level3_0(level2, eighth))
        level4 = self.level4(self.level4_0(level3, pool_image(eighth)))
        return level1, level2, level3, level4


class PyramidPool(nn.Module):
    """Depthwise convolutions of a map at several sizes, which are mixed.

    Args:
        in_channels: Channels of the map.
        width: Channels of the map at each size, and of the mixture.
        channels: Channels of the output; None omits the last convolution.
        scales: Sizes relative to that of the map.
        norm_cfg: Norm after the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        channels: int | None = None,
        *,
        scales: Sequence[float] = POOL_SCALES,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.scales = list(scales)
        count = len(self.scales)
        self.project = conv_norm(in_channels, width, norm_cfg=norm_cfg)
        self.stages = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False) for _ in self.scales
        )
        self.fuse = norm_act(count * width, norm_cfg)
        self.shuffle = nn.ChannelShuffle(count)
        self.mix = conv_norm(count * width, width, 3, groups=width, norm_cfg=norm_cfg)
        self.out = (
            nn.Identity()
            if channels is None
            else nn.Sequential(
                nn.Conv2d(width, channels, 1, bias=False), norm_act(channels, norm_cfg)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, H, W); C is ``width`` if ``channels`` is None."""
        x = self.project(x)
        maps = [
            self._at_scale(x, stage, scale)
            for stage, scale in zip(self.stages, self.scales, strict=True)
        ]
        return self.out(self.mix(self.shuffle(self.fuse(torch.cat(maps, dim=1)))))

    @staticmethod
    def _at_scale(x: Tensor, stage: nn.Module, scale: float) -> Tensor:
        h, w = size = x.shape[2:]
        # As released, the product is in floating point: ceil(70 * 0.1) is 8.
        target = max(SMALLEST, ceil(h * scale)), max(SMALLEST, ceil(w * scale))
        if scale < 1:
            return resize(stage(F.adaptive_avg_pool2d(x, target)), size, align_corners=True)
        if scale > 1:
            return F.adaptive_avg_pool2d(stage(resize(x, target, align_corners=True)), (h, w))
        return stage(x)


class PointwiseGate(nn.Module):
    """A 3x3 convolution times a weight per channel, sigmoid(W mean(x))."""

    def __init__(self, in_channels: int, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        groups = gcd(in_channels, channels)
        self.expand = conv_norm(in_channels, channels, 3, groups=groups, norm_cfg=norm_cfg)
        self.weigh = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, H, W)."""
        return self.expand(x) * self.weigh(x.mean((2, 3), keepdim=True)).sigmoid()


@MODELS.register_module()
class ESPNetV2Head(BaseDecodeHead):
    """Decoder that fuses pyramids of four levels, coarsest first, into logits at stride 2.

    Args:
        in_channels: Channels of the four levels, finest first.
        in_index: Indices of the levels in the backbone's output.
        num_classes: Number of classes, at least 2.
        spare_classes: Number of additional outputs, which are trained but never predicted (1 in
            DSRL's released Cityscapes model).
        base_channels: Base width: 16 for Pascal and Cityscapes, 32 for COCO, as released.
        **kwargs: Arguments of the host's ``BaseDecodeHead``; ``channels`` is the width of the
            pyramids, by default half the number of outputs and at most ``base_channels``.

    Raises:
        UserError: ``in_channels`` does not list four levels, or there are fewer than 2 classes.
    """

    reads_levels = True

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        in_index: Sequence[int] = (0, 1, 2, 3),
        num_classes: int,
        spare_classes: int = 0,
        base_channels: int = 16,
        **kwargs: Any,
    ) -> None:
        require_levels(self, in_channels)
        if len(in_channels) != 4 or num_classes < 2:
            raise UserError(
                f'ESPNetV2Head got in_channels={list(in_channels)}, num_classes={num_classes}: '
                'give the channels of four levels and at least 2 classes'
            )
        outputs = num_classes + spare_classes
        kwargs |= dict(input_transform='multiple_select', in_index=in_index)
        kwargs = released_defaults(
            kwargs,
            channels=min(outputs // 2, base_channels),
            dropout_ratio=0.0,
            align_corners=True,
            loss_decode=dict(type='WeightedCELoss'),
            init_cfg=KAIMING,
        )
        super().__init__(in_channels, num_classes=num_classes, **kwargs)
        width = self.channels
        c0, c1, c2, c3 = in_channels
        d0, d1, d2 = 4 * base_channels, 3 * base_channels, 2 * base_channels
        self.pools = nn.ModuleList(
            PyramidPool(before, width, after, norm_cfg=self.norm_cfg)
            for before, after in ((c3, d0), (d0, d1), (d1, d2), (d2, None))
        )
        self.gates = nn.ModuleList(
            PointwiseGate(before, after, self.norm_cfg)
            for before, after in ((c2, d0), (c1, d1), (c0, d2))
        )
        self.norms = nn.ModuleList(norm_act(channels, self.norm_cfg) for channels in (d0, d1, d2))
        self.conv_seg = nn.Conv2d(width, outputs, 1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Levels (N, C_i, H_i, W_i) to logits (N, K, H_0, W_0); K includes the spare classes."""
        *finer, x = self._transform_inputs(inputs)
        *pools, last = self.pools
        for pool, gate, norm, level in zip(pools, self.gates, self.norms, finer[::-1], strict=True):
            x = norm(resize(pool(x), level.shape[2:], align_corners=True) + gate(level))
        return self.cls_seg(last(x))

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Removes the spare classes from logits (N, K, h, w) and resizes to the images."""
        return super().predict_by_feat(seg_logits[:, : self.out_channels], batch_img_metas)
