"""DSRL's branches after the encoder: upsamplers of logits (SSSR), decoders of the image (SISR).

An upsampler is called with logits (N, K, h, w) and the size (h, w) of the network's input.
A decoder is called with the levels of the backbone or neck and the size of the image.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...baselines.dense_deeplab import DeepLabDecoder
from ...errors import UserError
from ...layers.levels import pointwise_of_levels, resize
from ...layers.sizes import Size

# Upsamplers of logits (SSSR)


@MODELS.register_module()
class PixelShuffleUpsampler(BaseModule):
    """Doubles logits by 3x3 convolutions and pixel shuffle; initially bilinear upsampling.

    The cost grows with the square of the number of classes.

    Args:
        num_classes: Channels of the logits.
        stages: Number of doublings.
        norm_cfg: Not used, as there is no norm.
    """

    def __init__(self, num_classes: int, stages: int = 2, norm_cfg: dict | None = None) -> None:
        super().__init__()
        convs = [
            nn.Conv2d(num_classes, 4 * num_classes, 3, padding=1, padding_mode='replicate')
            for _ in range(stages)
        ]
        side = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])  # of the left and right pixel
        bilinear = torch.einsum('iy,jx->ijyx', side, side).flatten(0, 1)  # (4, 3, 3)
        one_class = torch.eye(num_classes)[:, None, :, None, None]
        for conv in convs:
            conv.weight.data.copy_((one_class * bilinear[:, None]).flatten(0, 1))
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.convs = nn.ModuleList(convs)

    def forward(self, logits: Tensor, size: Size) -> Tensor:
        """Logits (N, K, h, w) to (N, K, 2^stages h, 2^stages w); ``size`` is not used."""
        for conv in self.convs:
            logits = F.pixel_shuffle(conv(logits), 2)
        return logits


@MODELS.register_module()
class DeconvUpsampler(BaseModule):
    """Doubles logits by transposed convolutions with norm and PReLU, as released for ESPNetv2.

    Args:
        num_classes: Channels of the logits.
        stages: Number of doublings (2 as released: from half the network's input to twice).
        max_classes: Largest accepted number of classes; the cost grows with its square.
        norm_cfg: Norm after each convolution.

    Raises:
        UserError: More classes than ``max_classes``.
    """

    def __init__(
        self,
        num_classes: int,
        stages: int = 2,
        *,
        max_classes: int = 32,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        if num_classes > max_classes:
            raise UserError(
                f'DeconvUpsampler costs too much for {num_classes} classes (up to {max_classes}): '
                "take sssr=dict(type='BilinearUpsampler'), or set max_classes"
            )
        k, norm_cfg = num_classes, norm_cfg or dict(type='BN')
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    nn.ConvTranspose2d(k, k, 3, 2, 1, output_padding=1, bias=False),
                    build_norm_layer(norm_cfg, k)[1],
                    nn.PReLU(k),
                )
                for _ in range(stages)
            )
        )

    def forward(self, logits: Tensor, size: Size) -> Tensor:
        """Logits (N, K, h, w) to (N, K, 2^stages h, 2^stages w); ``size`` is not used."""
        return self.stages(logits)


@MODELS.register_module()
class BilinearUpsampler(BaseModule):
    """Resizes logits to the size of the network's input; the segmentor resizes them to the image.

    Args:
        num_classes: Not used, as nothing is learned.
        align_corners: Whether resizing aligns the corners (True in the third-party DeepLabV3+).
        norm_cfg: Not used.
    """

    def __init__(
        self, num_classes: int, *, align_corners: bool = False, norm_cfg: dict | None = None
    ) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, logits: Tensor, size: Size) -> Tensor:
        """Logits (N, K, h, w) to (N, K, *size)."""
        return resize(logits, size, self.align_corners)


# Decoders of the image (SISR)


@MODELS.register_module()
class ESPCNDecoder(BaseModule):
    """Decodes the image by convolutions at low resolution and a sub-pixel convolution.

    Kernels and tanh are those of ESPCN (Shi et al., arXiv 1609.05158).

    Args:
        in_channels: Channels of each level, finest first.
        in_index: Indices of the levels in the output of the backbone or neck.
        scale: Factor of the sub-pixel convolution: a feature gives ``scale`` x ``scale`` pixels.
        channels: Channels of the 5x5 and of the 3x3 convolution; the affinity loss compares the
            latter.
        norm_cfg: Norm of the projection of all levels.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        in_index: int | Sequence[int],
        *,
        scale: int = 8,
        channels: Sequence[int] = (64, 32),
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=dict(type='Xavier', layer='Conv2d'))
        self.in_index = _as_list(in_index)
        self.scale = scale
        width, self.feat_channels = channels
        norm_cfg = norm_cfg or dict(type='BN')
        self.project = ConvModule(sum(_as_list(in_channels)), width, 1, norm_cfg=norm_cfg)
        self.convs = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(width, self.feat_channels, 3, padding=1),
            nn.Tanh(),
        )
        self.conv_image = nn.Conv2d(self.feat_channels, 3 * scale**2, 3, padding=1)

    def forward(self, levels: Sequence[Tensor], size: Size) -> tuple[Tensor, Tensor]:
        """Levels (N, C_i, H_i, W_i) to the image (N, 3, *size), normalised, and its features.

        The features (N, C, h, w) are the input of the last convolution.
        """
        read = [levels[i] for i in self.in_index]
        x = pointwise_of_levels(self.project.conv, read, align_corners=False)
        x = self.project.activate(self.project.norm(x))
        grid = (-(-size[0] // self.scale), -(-size[1] // self.scale))
        feats = self.convs(resize(x, grid, align_corners=False))
        image = F.pixel_shuffle(self.conv_image(feats), self.scale)
        return resize(image.float(), size, align_corners=False), feats


class ResidualDoubling(nn.Module):
    """A 2x2 transposed convolution, then the sum of two 3x3 convolutions and a 1x1 convolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(in_channels, channels, 2, 2)
        self.residual = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C_in, h, w) to (N, C, 2h, 2w)."""
        x = self.deconv(x)
        return self.residual(x) + self.shortcut(x)


@MODELS.register_module()
class DeconvDecoder(BaseModule):
    """Decodes the image by a DeepLabV3+ decoder and three doublings, as the third-party code.

    Args:
        in_channels: Channels of the fine and of the coarse level.
        in_index: Indices of both levels in the output of the backbone or neck.
        norm_cfg: Norm of the decoder.
    """

    feat_channels = 16

    def __init__(
        self,
        in_channels: Sequence[int],
        in_index: Sequence[int],
        *,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        self.in_index = list(in_index)
        self.decoder = DeepLabDecoder(in_channels, 256, 128, norm_cfg=norm_cfg or dict(type='BN'))
        self.project = nn.Conv2d(128, 64, 1)
        widths = (64, 64, 32, self.feat_channels)
        self.doublings = nn.Sequential(
            *(ResidualDoubling(a, b) for a, b in zip(widths, widths[1:], strict=False))
        )
        self.conv_image = nn.Conv2d(self.feat_channels, 3, 1)

    def forward(self, levels: Sequence[Tensor], size: Size) -> tuple[Tensor, Tensor]:
        """Levels (N, C_i, H_i, W_i) to the image (N, 3, *size), normalised, and its features.

        The features (N, 16, h, w) are the input of the last convolution.
        """
        fine, coarse = (levels[i] for i in self.in_index)
        feats = self.doublings(self.project(self.decoder(fine, coarse)))
        return resize(self.conv_image(feats).float(), size, align_corners=True), feats


def _as_list(x: int | Sequence[int]) -> list[int]:
    return [x] if isinstance(x, int) else list(x)
