"""Gates of HANet: a factor for each row and channel of a map."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from ...errors import UserError
from ...layers.precision import at_least_float32, wide_dtype
from .positions import sinusoid_table


def mean_of_rows(x: Tensor) -> Tensor:
    """Mean of each row, (N, C, H, W) to (N, C, H, 1).

    The gradient of a sum is expanded and not stored for each pixel.
    """
    total = x.sum(3, keepdim=True, dtype=wide_dtype(x))
    return (total / x.shape[3]).to(x.dtype)


def maximum_of_rows(x: Tensor) -> Tensor:
    """Maximum of each row, (N, C, H, W) to (N, C, H, 1)."""
    return x.amax(3, keepdim=True)


# Two functions for each kind of pooling: over the width, then to a number of rows.
POOLS: dict[str, tuple[Callable, Callable]] = {
    'mean': (mean_of_rows, F.adaptive_avg_pool2d),
    'max': (maximum_of_rows, F.adaptive_max_pool2d),
}


class HeightAttention(nn.Module):
    """Gate in (0, 1) for each row and channel of a map, from the rows of another map (Sec. 3.1).

    Signals have the shape (N, C, rows, 1), so that any 2-D norm and dropout works.

    Args:
        in_channels: Channels of the map that the gates are computed from.
        out_channels: Channels of the map that the gates multiply.
        rows: Number of rows that the map is pooled to, a power of 2 up to 128 (16 in the paper).
        reduction: Divisor of ``in_channels`` for the width of the first convolution, rounded up.
        num_convs: Number of convolutions: 3, or 2 without the middle convolution.
        kernel_size: Kernel size of the last convolution.
        injection: Number of the convolution before which the position code is added: 1 or 2; 0 adds
            no code.
        learned: Whether position codes start at zero and are learned; otherwise they are sinusoids.
        pooling: Kind of pooling to rows, 'mean' or 'max'.
        dropout_ratio: Probability that a channel of the pooled map is dropped.
        position_noise: Standard deviation of the shift of a position in training, in rows, before
            the shift is rounded towards zero.
        norm_cfg: Norm of all convolutions except the last.

    Raises:
        UserError: An argument has a value that is not listed here.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        rows: int = 16,
        reduction: int = 64,
        num_convs: int = 3,
        kernel_size: int = 3,
        injection: int = 2,
        learned: bool = False,
        pooling: str = 'mean',
        dropout_ratio: float = 0.1,
        position_noise: float = 0.5,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        require_choice('rows', rows, [2**i for i in range(8)])
        require_choice('num_convs', num_convs, (2, 3))
        require_choice('injection', injection, (0, 1, 2))
        require_choice('pooling', pooling, POOLS)
        if reduction < 1:
            raise UserError(f'reduction={reduction} would leave no channel: take 1 or more')
        norm_cfg = norm_cfg or dict(type='BN')
        width = -(-in_channels // reduction)
        self.rows = rows
        self.injection = injection
        self.position_noise = position_noise
        self.summarise, self.to_rows = POOLS[pooling]  # to (N, C, H, 1), then (N, C, rows, 1)
        self.dropout = nn.Dropout2d(dropout_ratio)
        self.squeeze = ConvModule(in_channels, width, 1, norm_cfg=norm_cfg)
        self.expand: nn.Module = nn.Identity()
        if num_convs == 3:
            self.expand = ConvModule(
                width, 2 * width, (3, 1), padding=(1, 0), bias=True, norm_cfg=norm_cfg
            )
            width *= 2
        self.conv_gate = nn.Conv2d(
            width, out_channels, (kernel_size, 1), padding=(kernel_size // 2, 0)
        )
        if injection:
            channels = in_channels if injection == 1 else self.squeeze.out_channels
            if learned:
                self.position = nn.Parameter(torch.zeros(rows + 1, channels))
            else:  # a saved buffer, because released checkpoints hold it
                self.register_buffer('position', sinusoid_table(rows + 1, channels))

    def forward(self, summary: Tensor, index: Tensor) -> Tensor:
        """Gates from the summary of a map.

        Args:
            summary: Result of ``summarise`` for a map (N, C, H, W), which is (N, C, H, 1).
            index: Positions of the rows (N, rows), int64, 0 to ``rows``; ``rows`` is padding.

        Returns:
            (N, out_channels, rows, 1), float32 or better.
        """
        x = self.to_rows(summary, (self.rows, 1))
        if self.injection == 1:
            x = x + self.code(index)
        x = self.squeeze(self.dropout(x))
        if self.injection == 2:
            x = x + self.code(index)
        x = self.conv_gate(self.expand(x))
        return at_least_float32(x).sigmoid()

    def code(self, index: Tensor) -> Tensor:
        """Codes (N, channels, rows, 1) of positions (N, rows)."""
        if self.training and self.position_noise:
            noise = torch.randn(index.shape, device=index.device) * self.position_noise
            limit = self.rows // 8
            index = (index + noise.trunc().long().clamp(-limit, limit)).clamp(0, self.rows)
        return F.embedding(index, self.position).mT[..., None]


def require_choice(name: str, value: Any, allowed: Any) -> None:
    """Refuse a value that is not allowed for the argument ``name``."""
    if value not in allowed:
        raise UserError(f'{name}={value!r} is not one of {", ".join(map(str, allowed))}')


def attention_arguments(attention: Mapping[str, Any] | None) -> dict[str, Any]:
    """Keyword arguments of ``HeightAttention``: the paper's, replaced by those in ``attention``.

    Raises:
        UserError: ``attention`` has an unknown key.
    """
    defaults = dict(HeightAttention.__init__.__kwdefaults__ or {})
    del defaults['norm_cfg']  # every head gives its norms
    changes = dict(attention or {})
    if unknown := sorted(changes.keys() - defaults.keys()):
        raise UserError(
            f'HANetHead does not know attention.{unknown[0]}: it reads {", ".join(defaults)}'
        )
    return defaults | changes


def at_height(gate: Tensor, like: Tensor) -> Tensor:
    """Resizes gates (N, C, rows, 1) to (N, C, H, 1), with the height and dtype of map ``like``."""
    size = like.shape[2], 1
    return F.interpolate(gate, size, mode='bilinear', align_corners=False).to(like.dtype)
