"""Scores of classes as logits."""

from torch import Tensor


def as_logits(scores: Tensor) -> Tensor:
    """Logarithms of the scores of classes (..., K, H, W), whose softmax is their distribution.

    The score of a single class is its probability, as the host has it for a single channel.
    """
    if scores.shape[-3] == 1:
        return scores.clamp(max=1)
    return scores.clamp(min=1e-12).log_()
