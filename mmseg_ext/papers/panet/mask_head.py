"""The mask head with fully-connected fusion (Section 3.3)."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from .blocks import GROUP_NORM, check_sizes, conv_block, init_layers
from .pooling import fuse_levels


class MaskFeatures(NamedTuple):
    """Both branches of the mask head for M regions, before the classes.

    Args:
        main: Features (M, C, 2R, 2R) of the convolutional branch.
        fc: Logits (M, 1, 2R, 2R) of the fully-connected branch, for all classes; None without it.
    """

    main: Tensor
    fc: Tensor | None


@MODELS.register_module()
class PANetMaskHead(BaseModule):
    """Grids of regions to mask logits of twice their size.

    The first convolution exists once for each level, and the maximum of its results goes on. A
    fully-connected branch adds the same logits to the masks of all classes.

    Args:
        in_channels: Width of the grids.
        num_classes: Number of classes K without background.
        num_levels: Number of grids of a region.
        channels: Width of the convolutions, C.
        roi_size: Number R of bins of a grid on each axis.
        fc_fusion: Whether there is the fully-connected branch.
        fc_relu: Whether the branch ends with a ReLU, as released: it can only raise logits.
        fusion: 'max', as released, or 'sum'.
        norm_cfg: Norm of the convolutions; None for none.

    Raises:
        UserError: An unknown fusion, or a width that the groups of the norm do not divide.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        num_levels: int = 4,
        channels: int = 256,
        roi_size: int = 14,
        fc_fusion: bool = True,
        fc_relu: bool = True,
        fusion: str = 'max',
        norm_cfg: Mapping | None = GROUP_NORM,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(init_cfg)
        half = {'half of channels': channels // 2} if fc_fusion else {}
        check_sizes(dict(channels=channels) | half, norm_cfg, fusion)
        self.num_classes, self.roi_size, self.fusion = num_classes, roi_size, fusion
        self.mask_size = 2 * roi_size
        self.levels = nn.ModuleList(
            conv_block(in_channels, channels, norm_cfg) for _ in range(num_levels)
        )
        self.convs = nn.Sequential(*(conv_block(channels, channels, norm_cfg) for _ in range(2)))
        self.main_conv = conv_block(channels, channels, norm_cfg)
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.classify = nn.Conv2d(channels, num_classes + 1, 1)
        self.fc_branch: nn.Sequential | None = None
        if fc_fusion:
            self.fc_branch = nn.Sequential(
                conv_block(channels, channels, norm_cfg),
                conv_block(channels, channels // 2, norm_cfg),
                nn.Flatten(),
                nn.Linear(channels // 2 * roi_size**2, self.mask_size**2),
                nn.ReLU() if fc_relu else nn.Identity(),
                nn.Unflatten(1, (1, self.mask_size, self.mask_size)),
            )

    def init_weights(self) -> None:
        """Initialises all layers as the released code does."""
        super().init_weights()
        init_layers(self, [])

    def features(self, grids: Iterable[Tensor]) -> MaskFeatures:
        """Both branches for grids (M, C_in, R, R) of each level."""
        x = self.convs(fuse_levels(self.levels, grids, self.fusion))
        main = self.upsample(self.main_conv(x)).relu()
        return MaskFeatures(main, self.fc_branch(x) if self.fc_branch is not None else None)

    def forward(self, grids: Iterable[Tensor]) -> Tensor:
        """Mask logits (M, K + 1, 2R, 2R) of all classes, background last."""
        main, fc = self.features(grids)
        logits = self.classify(main)
        return logits if fc is None else logits + fc

    def logits_of(self, grids: Iterable[Tensor], labels: Tensor) -> Tensor:
        """Mask logits (M, 2R, 2R) of the class ``labels`` (M,) of each region.

        Only the weights of these classes are used, with the same numbers as ``forward``.
        """
        main, fc = self.features(grids)
        logits = self.main_logits(main, labels)
        return logits if fc is None else logits + fc[:, 0]

    def main_logits(self, main: Tensor, labels: Tensor) -> Tensor:
        """Logits (M, 2R, 2R) of the convolutional branch for the class of each region."""
        weight, bias = self.classify.weight[:, :, 0, 0], self.classify.bias
        assert bias is not None
        products = weight[labels, None] @ main.flatten(2)  # (M, 1, 4 R^2)
        return torch.add(products.view(len(main), *main.shape[2:]), bias[labels, None, None])
