"""DSRL's branches after the encoder: upsamplers of logits (SSSR), decoders of the image (SISR).

Upsamplers are called with logits (N, K, h, w) and the size (h, w) of the network's input, decoders
with the levels of the backbone or neck and the size of the image.
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
    """Doubles logits by 3x3 convolutions to the four pixels of each; bilinear until trained.

    Args:
        num_classes: Channels of the logits.
        stages: Number of doublings.
        norm_cfg: Not used: there is no norm.
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
        """(N, K, h, w) to (N, K, 2^stages h, 2^stages w); ``size`` does not matter."""
        for conv in self.convs:
            logits = F.pixel_shuffle(conv(logits), 2)
        return logits


@MODELS.register_module()
class DeconvUpsampler(BaseModule):
    """Doubles logits by transposed convolutions with norm and PReLU, as released for ESPNetv2.

    Args:
        num_classes: Channels of the logits.
        stages: Number of doublings (2 as released: from half the network's input to twice).
        max_classes: More than these are refused; the cost grows with the square of the classes.
        norm_cfg: Norm after each convolution.

    Raises:
        ValueError: More classes than ``max_classes``.
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
                "take sssr=dict(type='BilinearUpsampler') or 'PixelShuffleUpsampler', or set "
                'max_classes'
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
        """(N, K, h, w) to (N, K, 2^stages h, 2^stages w); ``size`` does not matter."""
        return self.stages(logits)


@MODELS.register_module()
class BilinearUpsampler(BaseModule):
    """Resizes logits to the network's input; from there they are resized to the image.

    Args:
        num_classes: Not used: nothing is learned.
        align_corners: As in ``interpolate``; True in the third-party DeepLabV3+.
        norm_cfg: Not used.
    """

    def __init__(
        self, num_classes: int, *, align_corners: bool = False, norm_cfg: dict | None = None
    ) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, logits: Tensor, size: Size) -> Tensor:
        """(N, K, h, w) to (N, K, *size)."""
        return resize(logits, size, self.align_corners)


# Decoders of the image (SISR)


@MODELS.register_module()
class ESPCNDecoder(BaseModule):
    """Features to the image by convolutions at low resolution and one sub-pixel convolution.

    Shi et al., arXiv 1609.05158, whose tanh and kernels it keeps.

    Args:
        in_channels: Of each level, finest first.
        in_index: Their places in the output of the backbone or neck.
        scale: Pixels of the image, along one side, that a feature gives.
        channels: Of the 5x5 and the 3x3 convolution; the last are the features for the affinity.
        norm_cfg: Norm of the levels' common projection.
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

        The features (N, C, h, w) are those before the last convolution.
        """
        read = [levels[i] for i in self.in_index]
        x = pointwise_of_levels(self.project.conv, read, align_corners=False)
        x = self.project.activate(self.project.norm(x))
        grid = (-(-size[0] // self.scale), -(-size[1] // self.scale))
        feats = self.convs(resize(x, grid, align_corners=False))
        image = F.pixel_shuffle(self.conv_image(feats), self.scale)
        return resize(image.float(), size, align_corners=False), feats


class ResidualDoubling(nn.Module):
    """A 2x2 transposed convolution, then two 3x3 convolutions beside a 1x1 convolution."""

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
        """(N, C_in, h, w) to (N, C, 2h, 2w)."""
        x = self.deconv(x)
        return self.residual(x) + self.shortcut(x)


@MODELS.register_module()
class DeconvDecoder(BaseModule):
    """Features to the image by a DeepLabV3+ decoder and three doublings: the third-party form.

    Args:
        in_channels: Of the fine and the coarse level.
        in_index: Their places in the output of the backbone or neck.
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

        The features (N, 16, h, w) are those before the last convolution.
        """
        fine, coarse = (levels[i] for i in self.in_index)
        feats = self.doublings(self.project(self.decoder(fine, coarse)))
        return resize(self.conv_image(feats).float(), size, align_corners=True), feats


def _as_list(x: int | Sequence[int]) -> list[int]:
    return [x] if isinstance(x, int) else list(x)
