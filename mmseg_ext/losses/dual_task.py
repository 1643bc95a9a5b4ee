"""Gated-SCNN's dual task loss: borders of the predicted classes against those of the label.

Paper: arXiv 1907.05740, Eq. 4 to 6. In the released code (nv-tlabs/GSCNN) both the smoothing and
the derivative return their input, so that it compares probabilities and not borders;
``spatial_grad=False`` is that.
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
EPS = 1e-6  # under the roots
TINY = 1e-10  # in the logarithms


def gumbel_softmax(
    logits: Tensor, valid: Tensor, temperature: float, uniform: Tensor | None = None
) -> Tensor:
    """Softmax over the classes of logits with Gumbel noise, (N, K, H, W), float32 or better.

    Args:
        logits: (N, K, H, W).
        valid: (N, H, W), bool; elsewhere there is the noise alone.
        temperature: Divides them, after the noise.
        uniform: Random numbers in [0, 1) in place of new ones, of as many elements.
    """
    if uniform is None:
        uniform = torch.rand_like(logits)
    with torch.no_grad():
        noise = (uniform.view(logits.shape) + TINY).log_().neg_().add_(TINY).log_()
        noise.div_(-temperature)
    return torch.addcmul(noise, logits, valid[:, None].to(logits) / temperature).softmax(1)


def mirrored(x: Tensor, dim: int) -> Tensor:
    """``x`` with ``RADIUS`` pixels more at both ends of a dimension, the last one repeated."""
    length = x.shape[dim]
    place = torch.arange(length, length + RADIUS, device=x.device) % (2 * length)
    after = torch.minimum(place, 2 * length - 1 - place)
    before = (length - 1 - after).flip(0)
    return torch.cat([x.index_select(dim, before), x, x.index_select(dim, after)], dim)


def smoothed(x: Tensor) -> Tensor:
    """Maps (N, K, H, W) under the triangle filter 1 2 3 4 5 4 3 2 1 in both directions."""
    kernel = x.new_tensor(TRIANGLE).expand(x.shape[1], 1, -1) / sum(TRIANGLE)
    with torch.autocast(x.device.type, enabled=False):
        x = F.conv2d(mirrored(x, 2), kernel[..., None], groups=x.shape[1])
        return F.conv2d(mirrored(x, 3), kernel[:, :, None], groups=x.shape[1])


def border_strength(x: Tensor) -> Tensor:
    """Size of the smoothed maps' gradient, (N, K, H, W), 0 outside of them; never 0 itself."""
    x = F.pad(smoothed(x), (1, 1, 1, 1))
    twice_x = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    twice_y = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    return ((twice_x.square() + twice_y.square()) / 4 + EPS).sqrt()


def border_difference(probs: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean difference of the borders of probabilities and label, each over the strongest one.

    Ignored pixels are empty on both sides, where their rim is a border too.

    Args:
        probs: (N, K, H, W).
        target: (N, H, W), int64 in [0, K), anything in it where ignored.
        valid: (N, H, W), bool.

    Returns:
        A scalar in [0, 1]; 0 without a valid pixel.
    """
    with torch.no_grad():
        one_hot = torch.zeros_like(probs).scatter_(1, target[:, None], valid[:, None].to(probs))
        wanted = border_strength(one_hot)
        wanted /= wanted.max()
    found = border_strength(probs * valid[:, None])
    gaps = (found / found.max() - wanted).abs().sum(1)
    return (gaps * valid).sum() / (probs.shape[1] * valid.sum().clamp(min=1))


def probability_difference(probs: Tensor, target: Tensor) -> Tensor:
    """The released form: ``border_difference`` without a gradient, of all pixels.

    With m = sqrt(2 p^2 + eps), divided by the largest one, that of the label is 1 at its class and
    ``low`` elsewhere, between which all others lie: the sum of differences is that of the m, with
    the sign of the label's class turned.

    Args:
        probs: (N, K, H, W).
        target: (N, H, W), int64 in [0, K).

    Returns:
        A scalar in [0, 1].
    """
    strength = torch.hypot(probs, probs.new_tensor((EPS / 2) ** 0.5))  # m / sqrt(2)
    low = (EPS / (2 + EPS)) ** 0.5
    classes = probs.shape[1]
    own = strength.gather(1, target[:, None])
    total = (strength.sum() - 2 * own.sum()) / strength.max() / strength.numel()
    return total + (1 + low) / classes - low


@MODELS.register_module()
class DualTaskLoss(PixelLoss):
    """Compares where classes are predicted to meet, by a Gumbel softmax, with where they do.

    Args:
        temperature: Of the softmax (tau = 1 in the paper, 0.5 as released).
        spatial_grad: Whether the borders are a spatial gradient, as in the paper; without it the
            probabilities themselves are compared, ignored pixels as if of class 0, as released.
        loss_weight: Factor of the loss.
        loss_name: Key in the log; has to contain "loss" to be trained.
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
        """Of noise from ``uniform`` numbers in [0, 1), as many as logits; None draws them."""
        if weight is not None:
            raise UserError(
                'DualTaskLoss got weights of pixels, but compares borders: remove the sampler'
            )
        target = torch.where(valid, label, 0).long()
        probs = gumbel_softmax(logits, valid, self.temperature, uniform)
        if self.spatial_grad:
            return border_difference(probs, target, valid)
        return probability_difference(probs, target)
