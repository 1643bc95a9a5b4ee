"""Gates of HANet: one factor for each row and channel of a map."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from ...errors import UserError
from .positions import sinusoid_table


def mean_of_rows(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, H, 1); a sum, whose gradient is not formed for each pixel."""
    total = x.sum(3, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return (total / x.shape[3]).to(x.dtype)


def maximum_of_rows(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, H, 1)."""
    return x.amax(3, keepdim=True)


POOLS: dict[str, tuple[Callable, Callable]] = {  # over the width, then to a number of rows
    'mean': (mean_of_rows, F.adaptive_avg_pool2d),
    'max': (maximum_of_rows, F.adaptive_max_pool2d),
}


class HeightAttention(nn.Module):
    """A gate in (0, 1) for each row and channel of a map, from the rows of another map (Sec. 3.1).

    Signals are (N, C, rows, 1), so that any 2-D norm and dropout works.

    Args:
        in_channels: Of the map that the gates are made from.
        out_channels: Of the map that they multiply.
        rows: How many rows the picture is pooled to, a divisor of 128 (16 in the paper).
        reduction: The first convolution has a so-many-th of ``in_channels``, rounded up.
        num_convs: 3, or 2 without the middle one.
        kernel_size: Of the last convolution.
        injection: The convolution that the code of positions is added before, 1 or 2; 0 for none.
        learned: Codes start at zero and are learned, in place of the sinusoid.
        pooling: 'mean' or 'max', to the rows.
        dropout_ratio: Drops whole channels of the pooled map.
        position_noise: Standard deviation of the shifts of positions in training, in rows before
            they are rounded towards zero.
        norm_cfg: Norm of the convolutions but the last.

    Raises:
        ValueError: an argument is none of these.
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
        self.summarise, self.to_rows = POOLS[pooling]  # (N, C, H, W) to (N, C, H, 1) to rows
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
            else:  # saved: released checkpoints hold it
                self.register_buffer('position', sinusoid_table(rows + 1, channels))

    def forward(self, summary: Tensor, index: Tensor) -> Tensor:
        """Gates of a map.

        Args:
            summary: What ``summarise`` leaves of a map (N, C, H, W): (N, C, H, 1).
            index: Positions of the rows (N, rows), int64 from 0 to ``rows``, which is padding.

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
        return x.to(torch.promote_types(x.dtype, torch.float32)).sigmoid()

    def code(self, index: Tensor) -> Tensor:
        """What is added for positions (N, rows): (N, channels, rows, 1)."""
        if self.training and self.position_noise:
            noise = torch.randn(index.shape, device=index.device) * self.position_noise
            limit = self.rows // 8
            index = (index + noise.trunc().long().clamp(-limit, limit)).clamp(0, self.rows)
        return F.embedding(index, self.position).mT[..., None]


def require_choice(name: str, value: Any, allowed: Any) -> None:
    if value not in allowed:
        raise UserError(f'{name}={value!r} is not one of {", ".join(map(str, allowed))}')


def at_height(gate: Tensor, like: Tensor) -> Tensor:
    """Gates (N, C, rows, 1) for the map ``like`` (N, C', H, W): (N, C, H, 1), in its type."""
    size = like.shape[2], 1
    return F.interpolate(gate, size, mode='bilinear', align_corners=False).to(like.dtype)
