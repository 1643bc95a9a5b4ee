"""Adaptive feature pooling: every region is pooled from all levels (Section 3.2)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import MappingProxyType

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError
from ...layers.roi_align import roi_align

FUSIONS: MappingProxyType[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    dict(max=torch.maximum, sum=torch.add)
)
LEVELS = ('all', 'assigned')
CANONICAL_SIZE, CANONICAL_LEVEL = 224, 2  # a region of this size is pooled from stride 16 in FPN


@MODELS.register_module()
class AdaptiveFeaturePooling(nn.Module):
    """Regions to their pooled grids, one for each level.

    Args:
        strides: Strides of the levels, fine to coarse.
        sampling_ratio: Number of samples of a bin on each axis; 0 for one per cell.
        levels: 'all', the paper's, or 'assigned': a region is pooled from one level by its size, as
            in FPN, and there is one grid.

    Raises:
        UserError: ``levels`` is unknown.
    """

    def __init__(
        self,
        strides: Sequence[int] = (4, 8, 16, 32),
        *,
        sampling_ratio: int = 2,
        levels: str = 'all',
    ) -> None:
        super().__init__()
        if levels not in LEVELS:
            raise UserError(f'levels={levels!r} is unknown: choose from {", ".join(LEVELS)}')
        self.strides, self.sampling_ratio = tuple(strides), sampling_ratio
        self.takes_all_levels = levels == 'all'

    @property
    def num_grids(self) -> int:
        """Number of grids of a region."""
        return len(self.strides) if self.takes_all_levels else 1

    def forward(self, levels: Sequence[Tensor], rois: Tensor, size: int) -> Iterator[Tensor]:
        """Grids (M, C, R, R) of the levels, fine to coarse, each pooled when it is asked for.

        Args:
            levels: Levels (N, C, H_i, W_i), at least as many as strides.
            rois: Regions (M, 5): number of the image, then x1, y1, x2, y2 in its pixels.
            size: Number R of bins of each axis.
        """
        if not self.takes_all_levels:
            yield self._pool_assigned(levels, rois, size)
            return
        for level, stride in zip(levels, self.strides, strict=False):
            yield roi_align(level, rois, size, stride, self.sampling_ratio)

    def _pool_assigned(self, levels: Sequence[Tensor], rois: Tensor, size: int) -> Tensor:
        assigned = self.assign(rois)
        pooled = [
            roi_align(level, rois[assigned == i], size, stride, self.sampling_ratio)
            for i, (level, stride) in enumerate(zip(levels, self.strides, strict=False))
        ]
        order = torch.cat([(assigned == i).nonzero()[:, 0] for i in range(len(pooled))])
        return torch.cat(pooled)[order.argsort()]

    def assign(self, rois: Tensor) -> Tensor:
        """Level of each region (M,) by FPN's rule: 2 + log2(size / 224), rounded down."""
        size = ((rois[:, 3] - rois[:, 1] + 1) * (rois[:, 4] - rois[:, 2] + 1)).clamp(min=1).sqrt()
        level = (CANONICAL_LEVEL + (size / CANONICAL_SIZE).log2() + 1e-6).floor()
        return level.clamp(0, len(self.strides) - 1).long()


def fuse_levels(layers: nn.ModuleList, grids: Iterable[Tensor], fusion: str) -> Tensor:
    """Fusion of the grids of a region, each behind the layer of its level.

    Only the result so far and the grid of one level are in memory at a time. The maximum is that
    of all grids; its gradients are equal too, because ties occur only at 0 behind a ReLU.

    Args:
        layers: A layer for each level.
        grids: Grids (M, C, R, R) of the levels.
        fusion: 'max' or 'sum'.
    """
    result: Tensor | None = None
    for layer, grid in zip(layers, grids, strict=True):
        features = layer(grid)
        result = features if result is None else FUSIONS[fusion](result, features)
    assert result is not None
    return result


def check_fusion(fusion: str) -> str:
    """Returns ``fusion``.

    Raises:
        UserError: It is unknown.
    """
    if fusion not in FUSIONS:
        raise UserError(f'fusion={fusion!r} is unknown: choose from {", ".join(FUSIONS)}')
    return fusion
