"""Layers of the heads of regions."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mmcv.cnn import build_norm_layer
from torch import nn

from ...errors import UserError
from .pooling import check_fusion

GROUP_NORM = MappingProxyType(dict(type='GN', num_groups=32))


def conv_block(in_channels: int, channels: int, norm_cfg: Mapping | None) -> nn.Sequential:
    """3x3 convolution, norm and ReLU."""
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=norm_cfg is None)
    return _block(conv, channels, norm_cfg)


def linear_block(in_channels: int, channels: int, norm_cfg: Mapping | None) -> nn.Sequential:
    """Fully-connected layer with bias, norm and ReLU."""
    return _block(nn.Linear(in_channels, channels), channels, norm_cfg)


def _block(layer: nn.Module, channels: int, norm_cfg: Mapping | None) -> nn.Sequential:
    norms = [] if norm_cfg is None else [build_norm_layer(dict(norm_cfg), channels)[1]]
    return nn.Sequential(layer, *norms, nn.ReLU())


def check_sizes(widths: Mapping[str, int], norm_cfg: Mapping | None, fusion: str) -> None:
    """Refuses what the layers of a head cannot have.

    Args:
        widths: Widths of normalised layers, by the names of the arguments.
        norm_cfg: Norm; a group norm must divide the widths.
        fusion: Fusion of the levels.

    Raises:
        UserError: A width is no multiple of the groups, or the fusion is unknown.
    """
    check_fusion(fusion)
    for name, width in widths.items():
        check_groups(name, width, norm_cfg)


def check_groups(name: str, channels: int, norm_cfg: Mapping | None) -> None:
    """Refuses a width that the groups of a group norm do not divide.

    Args:
        name: Name of the argument with the width.
        channels: Width.
        norm_cfg: Norm; other norms than group norms take any width.

    Raises:
        UserError: The width is no multiple of the number of groups.
    """
    groups = norm_cfg.get('num_groups', 1) if norm_cfg else 1
    if channels % groups:
        raise UserError(
            f'{name}={channels} must be a multiple of {groups}, the groups of norm_cfg: change one '
            'of the two'
        )


def init_layers(module: nn.Module, outputs: Sequence[tuple[nn.Linear, float]]) -> None:
    """Initialises layers as the released code does.

    Convolutions are normal with the deviation sqrt(2 / fan_out), fully-connected layers normal with
    0.01, biases 0.

    Args:
        module: Module with the layers.
        outputs: Layers with another deviation, and their deviations.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for output, deviation in outputs:
        nn.init.normal_(output.weight, std=deviation)
