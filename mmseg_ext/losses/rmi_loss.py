"""Region Mutual Information Loss for Semantic Segmentation. NeurIPS 2019, arXiv 1910.12037.

Official code: https://github.com/ZJULearning/RMI (archived). This module computes the form that
trains HMSA, in https://github.com/NVIDIA/semantic-segmentation (BSD-3-Clause style licence).
Differs from it, with the same numbers:

- It needs no one-hot labels, and takes the patches of a few rows at a time.
- It takes one Cholesky factor of the joint covariance instead of an inverse and a difference.
- A covariance that is not positive definite gets a larger diagonal instead of an error.
- Negative labels are ignored.
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
RIDGE = 5e-4  # a, added to the diagonal of both covariances
FLOOR = 0.5 * math.log(RIDGE)  # RMI of an absent class; a perfect prediction is 0.35 above
PATCH_BYTES = 2**23  # size of the float64 patches at a time; it fits into the cache of a CPU


def _pooled_size(size: torch.Size, pool: str, stride: int) -> tuple[int, int]:
    if pool == 'interp':
        return size[0] // stride, size[1] // stride
    h, w = ((length + stride // 2 * 2 - stride) // stride + 1 for length in size)
    return h, w


def _pool(maps: Tensor, pool: str, stride: int) -> Tensor:
    """Downsamples maps (N, K, H, W); the zero padding counts in the average."""
    if pool == 'interp':
        size = _pooled_size(maps.shape[2:], pool, stride)
        return F.interpolate(maps, size, mode='bilinear', align_corners=True)
    pooling = F.avg_pool2d if pool == 'avg' else F.max_pool2d
    return pooling(maps, stride, stride, stride // 2)


def _count_labels(label: Tensor, num_classes: int, stride: int, dtype: torch.dtype) -> Tensor:
    """Number of pixels of each class in each pooling window, (N, K, h, w).

    Pixels beyond the last window are counted in an additional row or column of windows.
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
    """Pooled one-hot labels, (N, K, h, w), computed without one-hot labels.

    Args:
        label: Labels, (N, H, W), int64 in [0, K]; K for ignored pixels.
        num_classes: Number of classes K.
        pool: Pooling of the probabilities; for 'interp' the labels take the nearest pixel.
        stride: Stride in pixels.
        dtype: Type of the result.
    """
    h, w = _pooled_size(label.shape[1:], pool, stride)
    if pool == 'interp':
        label = F.interpolate(label[:, None].float(), (h, w), mode='nearest')[:, 0].long()
        return _count_labels(label, num_classes, 1, dtype)
    counts = _count_labels(label, num_classes, stride, dtype)[..., :h, :w]
    return counts / stride**2 if pool == 'avg' else counts.clamp(max=1)


def _patches(maps: Tensor, radius: int) -> Iterator[tuple[slice, Tensor]]:
    """All r x r patches as columns, one band of rows at a time.

    Args:
        maps: Probabilities and labels, (N, K, 2, h, w).
        radius: Side r of a patch.

    Yields:
        The rows of a band, and its M patches (N, K, 2*r*r, M), float64.
    """
    n, k, _, h, w = maps.shape
    bytes_per_row = n * k * 2 * radius**2 * (w - radius + 1) * 8
    step = max(1, PATCH_BYTES // bytes_per_row)
    for top in range(0, h - radius + 1, step):
        rows = slice(top, min(top + step + radius - 1, h))
        band = maps[..., rows, :].double().flatten(1, 2)
        yield rows, F.unfold(band, radius).view(n, k, 2 * radius**2, -1)


class _UnexplainedLabels(torch.autograd.Function):
    """Half the log determinant of the labels' covariance that the prediction does not explain.

    For the pooled probabilities P and labels T, (N, K, h, w) each, with covariances S of their
    patches (sums, not means, over all patches) and a = ``RIDGE``, it returns

        1/2 log det(A + aI),  A = S_tt - S_tp (S_pp + aI)^-1 S_pt

    as (N, K), float64. Only P gets a gradient. All products are float64, which autocast does not
    change: covariances reach 1e5, while the values of A + aI go down to ``RIDGE``.
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
        # The joint covariance is [[S_pp, S_pt], [S_tp, S_tt]]. The last block of its Cholesky
        # factor is the factor L of A + aI, and 1/2 log det(A + aI) = sum log diag(L).
        left = factor[..., d:, d:]
        # With the regression W = S_tp (S_pp + aI)^-1, the gradient is -W^T (A + aI)^-1 (T - W P).
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
    """Lower Cholesky factors of ``joint + aI``; where ``a`` is too small, of ``joint + 11 aI``."""
    eye = torch.eye(joint.shape[-1], dtype=joint.dtype, device=joint.device)
    joint = joint + RIDGE * eye
    failed = torch.linalg.cholesky_ex(joint).info > 0
    # All are factored again: a test whether any failed would wait for the device.
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
    """The cross entropy of the pixels, and the RMI term of their patches.

    The RMI term is 1/2 log det(A + aI) / radius^2 (see ``_UnexplainedLabels``), averaged over
    images and summed over classes. Up to a constant it is -1 times a lower bound of the mutual
    information between labels and probabilities of a patch. It is at least ``K * FLOOR``.

    Args:
        logits: Logits, (N, K, H, W), any float type.
        label: Labels, (N, H, W), integers.
        valid: Mask of the pixels that count, (N, H, W), bool.
        radius: Side of the square patches, in pooled pixels.
        pool: Pooling: 'avg' or 'max' in windows of ``pool_stride``, or 'interp', which resizes.
        pool_stride: Stride of the pooling of probabilities and labels; 1 keeps their size.

    Returns:
        The loss of ``pixel_sum_bce`` and the RMI term, scalars, float32 or better.

    Raises:
        UserError: The pooled maps are smaller than a patch.
    """
    size = _pooled_size(label.shape[1:], pool, pool_stride)
    if min(size) < radius:
        raise UserError(
            f'labels of {tuple(label.shape[1:])} pooled by {pool_stride} give {size}, less than a '
            f'patch of radius={radius}: use larger crops or a smaller pool_stride'
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
    """The RMI term of ``region_terms``; labels outside [0, K) and ``ignore_index`` are ignored."""
    valid = valid_pixels(logits, label, ignore_index)
    return region_terms(logits, label, valid, **options)[1]


@MODELS.register_module()
class RMILoss(PixelLoss):
    """Sigmoid cross entropy of pixels plus the region mutual information of patches around them.

    It works as ``loss_decode`` of any head. Without ``offset`` the loss of a good model is
    negative, down to about -3.8 * K * ``rmi_weight``.

    Args:
        radius: Side of the square patches, in pooled pixels.
        pool: Pooling: 'avg', 'max' or 'interp'.
        pool_stride: Stride of the pooling of probabilities and labels.
        rmi_weight: Factor lambda of the RMI term.
        combine: Factor of the cross entropy: ``1 - rmi_weight`` for 'mix', 1 for 'add'.
        offset: Whether to subtract the lower bound of the RMI term, so that the loss is above 0;
            gradients stay the same.
        loss_weight: Factor of the sum.
        loss_name: Key in the log; it has to contain "loss", or the loss is not trained.

    Raises:
        UserError: An option is out of its range.
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
                f'RMILoss got radius={radius}, pool_stride={pool_stride}: both must be at least 1'
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
                'RMILoss got pixel weights, but it compares regions: remove the '
                "sampler from the head, or use type='PixelSumBCELoss'"
            )
        bce, rmi = region_terms(
            logits, label, valid, radius=self.radius, pool=self.pool, pool_stride=self.pool_stride
        )
        if self.offset:
            rmi = rmi - logits.shape[1] * FLOOR
        return self.bce_weight * bce + self.rmi_weight * rmi
