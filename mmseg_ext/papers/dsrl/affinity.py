"""DSRL's feature affinity: similarities of all pairs of pixels, compared between two maps."""

from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...errors import UserError
from ...layers.precision import at_least_float32
from ...layers.sizes import Size


def strip_rows(x: Tensor) -> int:
    """Number of rows of the P x P matrices of x (N, C, P) that are computed at a time."""
    # A CPU's cache is small.
    pairs = 2**20 if x.device.type == 'cpu' else 2**24
    return max(1, pairs // (x.shape[0] * x.shape[2]))


class _AffinityGap(torch.autograd.Function):
    """Sum over all pairs of |a_i . a_j - b_i . b_j|, by strips of the symmetric matrix.

    Forward computes the gradients too, while it holds the strip: with the signs G of the
    differences they are 2 a G and -2 b G. A strip has its rows on the diagonal, then all columns to
    the right; these columns count twice, for their mirror images below the diagonal.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """(N, C_1, P) and (N, C_2, P) to a scalar."""
        count, rows = a.shape[2], strip_rows(a)
        learning = [
            (x, torch.zeros_like(x), factor)
            for x, factor, needed in zip((a, b), (2, -2), ctx.needs_input_grad, strict=True)
            if needed
        ]
        total = a.new_zeros(())
        for start in range(0, count, rows):
            strip, columns = slice(start, start + rows), slice(start, count)
            gap = a[..., strip].mT @ a[..., columns]
            gap.baddbmm_(b[..., strip].mT, b[..., columns], alpha=-1)  # (N, rows, P - start)
            diagonal, mirrored = gap[..., :rows], gap[..., rows:]
            norms = [torch.linalg.vector_norm(x, 1) for x in (diagonal, mirrored)]
            total += norms[0] + 2 * norms[1]
            if learning:
                gap.sign_()
            for x, grad, factor in learning:
                grad[..., strip].baddbmm_(x[..., columns], gap.mT, alpha=factor)
                grad[..., start + rows :].baddbmm_(x[..., strip], mirrored, alpha=factor)
        grads = iter(grad for _, grad, _ in learning)
        ctx.save_for_backward(*(next(grads) if needed else None for needed in ctx.needs_input_grad))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(None if saved is None else grad * saved for saved in ctx.saved_tensors)


def _gram_gap(a: Tensor, b: Tensor) -> Tensor:
    """Sum over all pairs of (a_i . a_j - b_i . b_j)^2, as |a a^T|^2 + |b b^T|^2 - 2 |a b^T|^2.

    It is computed in float64, because the three terms nearly cancel where the maps are alike.
    """
    a, b = a.double(), b.double()
    terms = [(x @ y.mT).square().sum() for x, y in ((a, a), (b, b), (a, b))]
    return terms[0] + terms[1] - 2 * terms[2]


def unit_pixels(x: Tensor, p: float, eps: float) -> Tensor:
    """Pixels of x (N, C, h, w) over their p-norms; 0, with gradient 0, where that is <= ``eps``."""
    # Unlike >, this comparison keeps NaN.
    has_features = ~(torch.linalg.vector_norm(x.detach(), p, dim=1, keepdim=True) <= eps)
    safe = torch.where(has_features, x, 1)
    return torch.where(
        has_features, safe / torch.linalg.vector_norm(safe, p, dim=1, keepdim=True), 0
    )


@MODELS.register_module()
class FeatureAffinityLoss(nn.Module):
    """Mean difference between the similarities of two pixels in one map and in another map.

    The similarity is the scalar product of the features of both pixels, each divided by its norm.
    The mean is over the P x P pairs of an image and over the batch. Peak memory grows with P, not
    with its square.

    Args:
        stride: Stride in pixels of the full image at which features are compared; finer features
            are averaged. The paper has an eighth of the input size. The third-party code takes this
            as the size that the network sees, which is a stride of 16.
        p: Order of the norm that features are divided by (2 in the paper); None for no division, as
            in the third-party code.
        q: Power of the differences: 1 as in the paper, or 2, which needs no P x P products and took
            a seventeenth of the time for 8192 positions on a CPU (46 against 779 ms).
        eps: Norm up to which features count as zero.
        detach_sr: Whether the second map gets no gradient; in the paper both maps learn.
        loss_weight: Factor of the loss (w2 = 1.0 in the paper).
        loss_name: Key in the log; has to contain "loss" to be trained.

    Raises:
        UserError: ``q`` is neither 1 nor 2, or ``stride`` is below 1.
    """

    def __init__(
        self,
        *,
        stride: int = 8,
        p: float | None = 2,
        q: int = 1,
        eps: float = 1e-12,
        detach_sr: bool = False,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_fa',
    ) -> None:
        super().__init__()
        if q not in (1, 2) or stride < 1:
            raise UserError(
                f'FeatureAffinityLoss got q={q}, stride={stride}: q is 1 or 2, stride 1 or more'
            )
        self.stride = stride
        self.p = p
        self.q = q
        self.eps = eps
        self.detach_sr = detach_sr
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, seg: Tensor, sr: Tensor, size: Size) -> Tensor:
        """Compares two maps of features.

        Args:
            seg: Features of the segmentation (N, C_1, h_1, w_1).
            sr: Features of the reconstruction (N, C_2, h_2, w_2).
            size: (h, w) of the image that both maps cover.

        Returns:
            Scalar, float32 or better.
        """
        with torch.autocast(seg.device.type, enabled=False):
            a, b = (x.flatten(2) for x in self.features(seg, sr, size))
            total = _AffinityGap.apply(a, b) if self.q == 1 else _gram_gap(a, b)
            return (self.loss_weight * total / (len(a) * a.shape[2] ** 2)).to(a.dtype)

    def features(self, seg: Tensor, sr: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """Both maps (N, C, h, w) as the loss compares them: float32, equal size, unit norm."""
        if self.detach_sr:
            sr = sr.detach()
        maps = [self._pool(at_least_float32(x), size) for x in (seg, sr)]
        common = tuple(min(lengths) for lengths in zip(*(x.shape[2:] for x in maps), strict=True))
        maps = [x if x.shape[2:] == common else F.adaptive_avg_pool2d(x, common) for x in maps]
        if self.p is not None:
            maps = [unit_pixels(x, self.p, self.eps) for x in maps]
        return maps[0], maps[1]

    def _pool(self, x: Tensor, size: Size) -> Tensor:
        kernel = [
            max(1, min(length, self.stride * length // of_image))
            for length, of_image in zip(x.shape[2:], size, strict=True)
        ]
        return x if kernel == [1, 1] else F.avg_pool2d(x, kernel)


def affinity_difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean over j of |a_i . a_j - b_i . b_j| for each pixel i: (N, C, h, w) to (N, 1, h, w)."""
    size, (a, b) = a.shape[2:], (x.flatten(2) for x in (a, b))
    rows = strip_rows(a)
    strips = zip(a.split(rows, dim=2), b.split(rows, dim=2), strict=True)
    gaps = [(a_strip.mT @ a - b_strip.mT @ b).abs().mean(2) for a_strip, b_strip in strips]
    return torch.cat(gaps, dim=1).unflatten(1, size)[:, None]


def affinity_of_pixel(x: Tensor, pixel: tuple[int, int], size: Size) -> Tensor:
    """Similarities (N, 1, h, w) of all features to those at ``pixel`` (x, y) of ``size``."""
    h, w = x.shape[2:]
    column, row = pixel[0] * w // size[1], pixel[1] * h // size[0]
    return torch.einsum('nchw,nc->nhw', x, x[:, :, row, column])[:, None]
