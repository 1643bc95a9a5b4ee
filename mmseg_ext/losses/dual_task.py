"""Gated-SCNN's dual task loss: borders of the predicted classes against borders of the label.

Paper: arXiv 1907.05740, Eq. 4 to 6. In the released code (nv-tlabs/GSCNN) the smoothing and the
derivative return their input, so it compares probabilities and not borders. The option
``spatial_grad=False`` gives this form.

The paper sums over the pixels where a border of the prediction or of the label is active. Here the
loss is the mean over all valid pixels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from ..errors import UserError
from .pixel_loss import PixelLoss

TRIANGLE = (1, 2, 3, 4, 5, 4, 3, 2, 1)
RADIUS = len(TRIANGLE) // 2
EPS = 1e-6  # added under square roots
TINY = 1e-10  # added in logarithms


def gumbel_softmax(
    logits: Tensor, valid: Tensor, temperature: float, uniform: Tensor | None = None
) -> Tensor:
    """Softmax over the classes of logits with Gumbel noise, (N, K, H, W), float32 or better.

    For logits z it is softmax((z + g) / temperature) with g = -log(-log(u)), u uniform in [0, 1).

    Args:
        logits: Logits z, (N, K, H, W).
        valid: Valid pixels, (N, H, W), bool; z counts as 0 at other pixels.
        temperature: Temperature tau.
        uniform: Numbers u, as many as logits; None draws them.
    """
    if uniform is None:
        uniform = torch.rand_like(logits)
    with torch.no_grad():
        noise = (uniform.view(logits.shape) + TINY).log_().neg_().add_(TINY).log_()
        noise.div_(-temperature)
    return torch.addcmul(noise, logits, valid[:, None].to(logits) / temperature).softmax(1)


def mirrored(x: Tensor, dim: int) -> Tensor:
    """Pads both ends of a dimension by ``RADIUS`` mirrored pixels, the border pixel included."""
    length = x.shape[dim]
    position = torch.arange(length, length + RADIUS, device=x.device) % (2 * length)
    after = torch.minimum(position, 2 * length - 1 - position)
    before = (length - 1 - after).flip(0)
    return torch.cat([x.index_select(dim, before), x, x.index_select(dim, after)], dim)


def smoothed(x: Tensor) -> Tensor:
    """Smooths maps (N, K, H, W) by the triangle filter 1 2 3 4 5 4 3 2 1 in both directions."""
    kernel = x.new_tensor(TRIANGLE).expand(x.shape[1], 1, -1) / sum(TRIANGLE)
    with torch.autocast(x.device.type, enabled=False):
        x = F.conv2d(mirrored(x, 2), kernel[..., None], groups=x.shape[1])
        return F.conv2d(mirrored(x, 3), kernel[:, :, None], groups=x.shape[1])


def border_strength(x: Tensor) -> Tensor:
    """Gradient magnitude sqrt(dx^2 + dy^2 + eps) of the smoothed maps, (N, K, H, W).

    Pixels outside of the maps count as 0.
    """
    x = F.pad(smoothed(x), (1, 1, 1, 1))
    twice_x = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    twice_y = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    return ((twice_x.square() + twice_y.square()) / 4 + EPS).sqrt()


def border_difference(probs: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference between the border strengths of probabilities and label.

    Each border strength is divided by its maximum. Ignored pixels are 0 in both maps, so their rim
    is a border in both.

    Args:
        probs: Probabilities, (N, K, H, W).
        target: Labels, (N, H, W), int64 in [0, K); any of these values at ignored pixels.
        valid: Valid pixels, (N, H, W), bool.

    Returns:
        A scalar in [0, 1]; 0 without a valid pixel.
    """
    with torch.no_grad():
        one_hot = torch.zeros_like(probs).scatter_(1, target[:, None], valid[:, None].to(probs))
        label_strength = border_strength(one_hot)
        label_strength /= label_strength.max()
    strength = border_strength(probs * valid[:, None])
    gaps = (strength / strength.max() - label_strength).abs().sum(1)
    return (gaps * valid).sum() / (probs.shape[1] * valid.sum().clamp(min=1))


def probability_difference(probs: Tensor, target: Tensor) -> Tensor:
    """The released form of ``border_difference``: without smoothing and derivative, of all pixels.

    With m = sqrt(2 p^2 + eps) and M = max m, it is the mean of abs(m / M - t) over P pixels and K
    classes. The target t is 1 for the class y of the label and low = sqrt(eps / (2 + eps)) for
    other classes. Since low <= m / M <= 1, the sign of every difference is fixed:

        loss = (sum(m) - 2 sum(m_y)) / (M P K) + (1 + low) / K - low

    Args:
        probs: Probabilities p, (N, K, H, W).
        target: Labels y, (N, H, W), int64 in [0, K).

    Returns:
        A scalar in [0, 1].
    """
    strength = torch.hypot(
        probs, probs.new_tensor((EPS / 2) ** 0.5)
    )  # m / sqrt(2); the factor cancels
    low = (EPS / (2 + EPS)) ** 0.5
    classes = probs.shape[1]
    label_strength = strength.gather(1, target[:, None])
    total = (strength.sum() - 2 * label_strength.sum()) / strength.max() / strength.numel()
    return total + (1 + low) / classes - low


@MODELS.register_module()
class DualTaskLoss(PixelLoss):
    """Compares the borders of predicted classes, from a Gumbel softmax, with those of the label.

    Args:
        temperature: Temperature of the softmax (tau = 1 in the paper, 0.5 as released).
        spatial_grad: Whether to compare spatial gradients, as in the paper. If False, probabilities
            are compared and ignored pixels count as class 0, as released.
        loss_weight: Factor of the loss.
        loss_name: Key in the log; it has to contain "loss", or the loss is not trained.
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        spatial_grad: bool = True,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_dual',
    ) -> None:
        super().__init__(loss_weight, loss_name)
        self.temperature = temperature
        self.spatial_grad = spatial_grad

    def value(
        self,
        logits: Tensor,
        label: Tensor,
        valid: Tensor,
        weight: Tensor | None,
        uniform: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The loss before ``loss_weight``; ``uniform`` as in ``gumbel_softmax``."""
        if weight is not None:
            raise UserError(
                'DualTaskLoss got pixel weights, but compares borders: remove the sampler'
            )
        target = torch.where(valid, label, 0).long()
        probs = gumbel_softmax(logits, valid, self.temperature, uniform)
        if self.spatial_grad:
            return border_difference(probs, target, valid)
        return probability_difference(probs, target)
