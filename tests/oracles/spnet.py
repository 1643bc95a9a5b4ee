"""SPNet's losses and modules by slow, obvious formulas, and as released for measuring."""

from collections.abc import Sequence

import torch
from torch import Tensor


def weighted_ce_of_hard_pixels(
    logits: Tensor,
    label: Tensor,
    class_weight: Sequence[float] | None,
    hard_below: float | None,
    min_kept: int,
) -> Tensor:
    """Weighted mean cross entropy over the pixels that are kept, one pixel at a time."""
    pixels = []  # (probability of its class, its loss, its weight)
    for n, y, x in torch.cartesian_prod(*(torch.arange(size) for size in label.shape)).tolist():
        c = label[n, y, x].item()
        if 0 <= c < logits.shape[1]:
            loss = torch.logsumexp(logits[n, :, y, x], 0) - logits[n, c, y, x]
            weight = class_weight[c] if class_weight is not None else 1.0
            pixels.append((torch.exp(-loss).item(), loss, weight))
    if hard_below is not None and len(pixels) > min_kept:
        threshold = max(hard_below, sorted(p for p, _, _ in pixels)[min_kept - 1])
        pixels = [pixel for pixel in pixels if pixel[0] <= threshold]
    return sum(w * loss for _, loss, w in pixels) / sum(w for _, _, w in pixels)
