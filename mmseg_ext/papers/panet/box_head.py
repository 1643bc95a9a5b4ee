"""The box head: class and box of each region (Sections 3.2 and 4.2)."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError
from .blocks import GROUP_NORM, check_sizes, conv_block, init_layers, linear_block
from .pooling import fuse_levels

KINDS = ('conv', '2fc')


class BoxOutput(NamedTuple):
    """Output of the box head for M regions.

    Args:
        features: (M, F).
        logits: Class logits (M, K + 1), background last.
        deltas: Deltas (M, K + 1, 4) of the box for each class.
    """

    features: Tensor
    logits: Tensor
    deltas: Tensor


@MODELS.register_module()
class PANetBoxHead(BaseModule):
    """Grids of regions to class logits and box deltas.

    The first layer exists once for each level, and the maximum of its results goes on.

    Args:
        in_channels: Width of the grids.
        num_classes: Number of classes K without background.
        num_levels: Number of grids of a region.
        kind: 'conv', four 3x3 convolutions and a fully-connected layer (the heavier head), or
            '2fc', two fully-connected layers.
        channels: Width of the convolutions.
        fc_channels: Width F of the fully-connected layers.
        roi_size: Number R of bins of a grid on each axis.
        fusion: 'max', as released, or 'sum'.
        norm_cfg: Norm of all layers except the last fully-connected layer of 'conv'; None for none.

    Raises:
        UserError: An unknown kind or fusion, or a width that the groups of the norm do not divide.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        num_levels: int = 4,
        kind: str = 'conv',
        channels: int = 256,
        fc_channels: int = 1024,
        roi_size: int = 7,
        fusion: str = 'max',
        norm_cfg: Mapping | None = GROUP_NORM,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if kind not in KINDS:
            raise UserError(f'kind={kind!r} is unknown: choose from {", ".join(KINDS)}')
        has_convs = kind == 'conv'
        width = dict(channels=channels) if has_convs else dict(fc_channels=fc_channels)
        check_sizes(width, norm_cfg, fusion)
        self.num_classes, self.roi_size, self.fusion = num_classes, roi_size, fusion
        area = roi_size**2
        if has_convs:
            first = [conv_block(in_channels, channels, norm_cfg) for _ in range(num_levels)]
            blocks = [conv_block(channels, channels, norm_cfg) for _ in range(3)]
            self.convs = nn.Sequential(*blocks, nn.Flatten())
            self.fc = linear_block(channels * area, fc_channels, None)
        else:
            first = [
                nn.Sequential(
                    nn.Flatten(), *linear_block(in_channels * area, fc_channels, norm_cfg)
                )
                for _ in range(num_levels)
            ]
            self.convs = nn.Sequential()
            self.fc = linear_block(fc_channels, fc_channels, norm_cfg)
        self.levels = nn.ModuleList(first)
        self.classify = nn.Linear(fc_channels, num_classes + 1)
        self.regress = nn.Linear(fc_channels, 4 * (num_classes + 1))

    def init_weights(self) -> None:
        """Initialises all layers as the released code does."""
        super().init_weights()
        init_layers(self, [(self.regress, 0.001)])

    def forward(self, grids: Iterable[Tensor]) -> BoxOutput:
        """Grids (M, C, R, R) of each level to logits and deltas."""
        x = fuse_levels(self.levels, grids, self.fusion)
        features = self.fc(self.convs(x))
        deltas = self.regress(features).unflatten(1, (-1, 4))
        return BoxOutput(features, self.classify(features), deltas)
