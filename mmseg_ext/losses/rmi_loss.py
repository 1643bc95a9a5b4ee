"""Region Mutual Information Loss for Semantic Segmentation. NeurIPS 2019, arXiv 1910.12037.

Official code: https://github.com/ZJULearning/RMI (archived). The form here is the one that trains
HMSA, in https://github.com/NVIDIA/semantic-segmentation (BSD-3-Clause style licence).
Differs from it, with the same numbers: no one-hot labels, one Cholesky factor of the joint
covariance in place of an inverse and a difference, and the patches of a few rows at a time. A
covariance that is not positive definite gets more on its diagonal instead of raising, and negative
labels are ignored.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import UserError
from .pixel_loss import PixelLoss, valid_pixels
from .pixel_sum_bce_loss import pixel_terms

POOLS = ('avg', 'max', 'interp')
RIDGE = 5e-4  # on the diagonal of both covariances
FLOOR = 0.5 * math.log(RIDGE)  # of a class that is absent; a perfect prediction is 0.35 above
PATCH_BYTES = 2**23  # of float64 patches at a time, which also fit a CPU's cache


def _pooled_size(size: torch.Size, pool: str, stride: int) -> tuple[int, int]:
    if pool == 'interp':
        return size[0] // stride, size[1] // stride
    h, w = ((length + stride // 2 * 2 - stride) // stride + 1 for length in size)
    return h, w


def _pool(maps: Tensor, pool: str, stride: int) -> Tensor:
    """Downsamples (N, K, H, W); the zeros around the maps count in the average."""
    if pool == 'interp':
        size = _pooled_size(maps.shape[2:], pool, stride)
        return F.interpolate(maps, size, mode='bilinear', align_corners=True)
    pooling = F.avg_pool2d if pool == 'avg' else F.max_pool2d
    return pooling(maps, stride, stride, stride // 2)


def _count_labels(label: Tensor, num_classes: int, stride: int, dtype: torch.dtype) -> Tensor:
    """Pixels of each class in each window of a pooling, (N, K, h, w).

    Pixels that no window reaches get another row or column of windows.
    """
    n, height, width = label.shape
    row, col = (
        (torch.arange(length, device=label.device) + stride // 2) // stride
        for length in (height, width)
    )
    h, w = ((length - 1 + stride // 2) // stride + 1 for length in (height, width))
    cell = ((label * h + row[:, None]) * w + col).flatten(1)  # (N, H*W)
    counts = torch.zeros(n, (num_classes + 1) * h * w, dtype=dtype, device=label.device)
    counts.scatter_add_(1, cell, counts.new_ones(()).expand_as(cell))
    return counts.view(n, num_classes + 1, h, w)[:, :num_classes]


def _pooled_labels(
    label: Tensor, num_classes: int, pool: str, stride: int, dtype: torch.dtype
) -> Tensor:
    """The pooled one-hot labels, (N, K, h, w), without the one-hot labels.

    Args:
        label: (N, H, W), int64 in [0, K], K for ignored pixels.
        num_classes: K.
        pool: How the probabilities are pooled; the labels of 'interp' take the nearest pixel.
        stride: In pixels.
        dtype: Of the result.
    """
    h, w = _pooled_size(label.shape[1:], pool, stride)
    if pool == 'interp':
        label = F.interpolate(label[:, None].float(), (h, w), mode='nearest')[:, 0].long()
        return _count_labels(label, num_classes, 1, dtype)
    counts = _count_labels(label, num_classes, stride, dtype)[..., :h, :w]
    return counts / stride**2 if pool == 'avg' else counts.clamp(max=1)


def _patches(maps: Tensor, radius: int) -> Iterator[tuple[slice, Tensor]]:
    """Every r x r patch as a column, for a band of rows at a time.

    Args:
        maps: (N, K, 2, h, w).
        radius: R, the side of a patch.

    Yields:
        The rows that a band reads, and its patches (N, K, 2*r*r, M), float64.
    """
    n, k, _, h, w = maps.shape
    bytes_per_row = n * k * 2 * radius**2 * (w - radius + 1) * 8
    step = max(1, PATCH_BYTES // bytes_per_row)
    for top in range(0, h - radius + 1, step):
        rows = slice(top, min(top + step + radius - 1, h))
        band = maps[..., rows, :].double().flatten(1, 2)
        yield rows, F.unfold(band, radius).view(n, k, 2 * radius**2, -1)


class _UnexplainedLabels(torch.autograd.Function):
    """Half the log determinant of a label patch's covariance that the prediction leaves over.

    Takes the pooled probabilities P and labels T, (N, K, h, w) each, and returns (N, K) float64.
    The gradient flows into P alone. Every product is float64, which autocast leaves alone: the
    covariances reach 1e5, and what is left over goes down to ``RIDGE``.
    """

    @staticmethod
    def forward(ctx: Any, probs: Tensor, target: Tensor, radius: int) -> Tensor:
        maps = torch.stack([probs, target], 2)
        d = radius**2
        n, k, _, h, w = maps.shape
        count = (h - radius + 1) * (w - radius + 1)
        mean = maps.new_zeros((n, k, 2 * d, 1), dtype=torch.float64)
        joint = maps.new_zeros((n, k, 2 * d, 2 * d), dtype=torch.float64)
        for _, patches in _patches(maps, radius):
            mean += patches.sum(-1, keepdim=True) / count
            joint += patches @ patches.mT
        joint -= count * mean @ mean.mT
        factor = _cholesky(joint)
        # [[S_pp, S_pt], [S_tp, S_tt]]: the last block of its factor is that of what is left over,
        # A + aI with A = S_tt - S_tp (S_pp + aI)^-1 S_pt.
        left = factor[..., d:, d:]
        # With the regression W = S_tp (S_pp + aI)^-1 the gradient is -W^T (A + aI)^-1 (T - W P).
        regression = torch.linalg.solve_triangular(
            factor[..., :d, :d], factor[..., d:, :d], upper=False, left=False
        )
        outer = torch.cholesky_solve(regression, left).mT
        slope = torch.cat([outer @ regression, -outer], -1)  # (N, K, d, 2d)
        ctx.save_for_backward(maps, slope, slope @ mean)
        ctx.radius = radius
        return left.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor, None, None]:
        maps, slope, offset = ctx.saved_tensors
        slope, offset = (x * grad_value[..., None, None] for x in (slope, offset))
        grad = torch.zeros_like(maps[:, :, 0], dtype=torch.float64)
        for rows, patches in _patches(maps, ctx.radius):
            out = grad[..., rows, :]
            grad_patches = torch.matmul(slope, patches).sub_(offset)  # (N, K, d, M)
            out += F.fold(grad_patches.flatten(1, 2), out.shape[2:], ctx.radius)
        return grad.to(maps.dtype), None, None


def _cholesky(joint: Tensor) -> Tensor:
    """Lower factors of ``joint + RIDGE * I``, with more on the diagonal of those that need it."""
    eye = torch.eye(joint.shape[-1], dtype=joint.dtype, device=joint.device)
    joint = joint + RIDGE * eye
    failed = torch.linalg.cholesky_ex(joint).info > 0
    # Factored again whether or not any failed: to ask would be to wait for the device.
    return torch.linalg.cholesky_ex(joint + 10 * RIDGE * failed[..., None, None] * eye).L


def region_terms(
    logits: Tensor,
    label: Tensor,
    valid: Tensor,
    *,
    radius: int = 3,
    pool: str = 'avg',
    pool_stride: int = 4,
) -> tuple[Tensor, Tensor]:
    """The cross entropy of the pixels, and what the probabilities around them leave open.

    The second is the sum over classes of the (negative, bounded) mutual information between the
    labels and the probabilities of a patch; it is never below ``K * FLOOR``.

    Args:
        logits: (N, K, H, W), any float type.
        label: (N, H, W), integers.
        valid: (N, H, W), bool: the pixels that count.
        radius: Side of the square patches, in pooled pixels.
        pool: 'avg' or 'max' in windows of ``pool_stride``, or 'interp', which resizes.
        pool_stride: By which both maps are downsampled first; 1 leaves them as they are.

    Returns:
        The value of ``pixel_sum_bce`` and that of the RMI, scalars, float32 or better.

    Raises:
        ValueError: the pooled maps are smaller than a patch.
    """
    size = _pooled_size(label.shape[1:], pool, pool_stride)
    if min(size) < radius:
        raise UserError(
            f'Labels of {tuple(label.shape[1:])} pooled by {pool_stride} give {size}, less than a '
            f'patch of radius={radius}: take larger crops or a smaller pool_stride'
        )
    num_classes = logits.shape[1]
    resize = partial(_pool, pool=pool, stride=pool_stride)
    bce, probs = pixel_terms(logits, label, valid, pool=resize)
    classes = torch.where(valid, label, num_classes).long()
    target = _pooled_labels(classes, num_classes, pool, pool_stride, bce.dtype)
    unexplained = _UnexplainedLabels.apply(probs, target, radius)
    return bce, unexplained.mean(0).sum().to(bce.dtype) / radius**2


def region_mutual_information(
    logits: Tensor, label: Tensor, *, ignore_index: int = 255, **options: Any
) -> Tensor:
    """The second of ``region_terms``, of the pixels whose label is in [0, K) and no other."""
    valid = valid_pixels(logits, label, ignore_index)
    return region_terms(logits, label, valid, **options)[1]


@MODELS.register_module()
class RMILoss(PixelLoss):
    """Sigmoid cross entropy of pixels plus the region mutual information of their surroundings.

    Works with any head's ``loss_decode``. It is negative once a model predicts well, down to about
    -3.8 * K * ``rmi_weight``, unless ``offset`` is set.

    Args:
        radius: Side of the square patches, in pooled pixels.
        pool: 'avg', 'max' or 'interp'.
        pool_stride: By which labels and probabilities are downsampled first.
        rmi_weight: Lambda, the factor of the RMI part.
        combine: 'mix' weighs the cross entropy by ``1 - rmi_weight``, 'add' by 1.
        offset: Subtracts the floor of the RMI part, for a loss above 0; gradients stay.
        loss_weight: Factor of the sum.
        loss_name: Key in the log; has to contain "loss" to be trained.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        radius: int = 3,
        pool: str = 'avg',
        pool_stride: int = 4,
        rmi_weight: float = 0.5,
        combine: str = 'mix',
        offset: bool = False,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_rmi',
    ) -> None:
        super().__init__(loss_weight, loss_name)
        if pool not in POOLS or combine not in ('mix', 'add'):
            raise UserError(
                f"RMILoss got pool='{pool}', combine='{combine}': pool is one of {POOLS}, "
                "combine is 'mix' or 'add'"
            )
        if radius < 1 or pool_stride < 1:
            raise UserError(
                f'RMILoss got radius={radius}, pool_stride={pool_stride}: both start at 1'
            )
        self.radius = radius
        self.pool = pool
        self.pool_stride = pool_stride
        self.rmi_weight = rmi_weight
        self.bce_weight = 1 - rmi_weight if combine == 'mix' else 1.0
        self.offset = offset

    def value(
        self, logits: Tensor, label: Tensor, valid: Tensor, weight: Tensor | None, **kwargs: Any
    ) -> Tensor:
        if weight is not None:
            raise UserError(
                'RMILoss got weights of pixels, but compares whole regions: remove the '
                "sampler from the head, or use type='PixelSumBCELoss'"
            )
        bce, rmi = region_terms(
            logits, label, valid, radius=self.radius, pool=self.pool, pool_stride=self.pool_stride
        )
        if self.offset:
            rmi = rmi - logits.shape[1] * FLOOR
        return self.bce_weight * bce + self.rmi_weight * rmi
