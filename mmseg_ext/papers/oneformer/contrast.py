"""Contrast between the queries of an image and its texts, over the images of all processes."""

import math
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.dist import get_rank, get_world_size
from torch import Tensor, nn


class _GatherWithGradient(torch.autograd.Function):
    """Tensors of all processes after each other; each process gets the gradients of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.length = len(x)
        parts = [torch.empty_like(x) for _ in range(get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        start = get_rank() * ctx.length
        return grad[start : start + ctx.length]


def gather_images(x: Tensor) -> Tensor:
    """Rows (N, D) of all processes, (N of all, D), with gradient; all have the same N."""
    return _GatherWithGradient.apply(x) if get_world_size() > 1 else x


class ContrastiveLoss(nn.Module):
    """Cross entropy of each image among all texts, and of the texts of an image among all images.

    All queries of an image, after each other, are one vector, and all its texts too. With a single
    image in the batch of all processes the loss is 0.

    Args:
        temperature: Temperature at the start; it is learned.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def forward(self, queries: Tensor, texts: Tensor) -> Tensor:
        """Sum of both means, a scalar.

        Args:
            queries: (N, Q, C), float32 or wider.
            texts: (N, Q, C).
        """
        queries, texts = (F.normalize(x.flatten(1), dim=1) for x in (queries, texts))
        scale = self.logit_scale.exp().clamp(max=100)
        own = torch.arange(len(queries), device=queries.device) + get_rank() * len(queries)
        of_images = scale * queries @ gather_images(texts).T
        of_texts = scale * texts @ gather_images(queries).T
        return F.cross_entropy(of_images, own) + F.cross_entropy(of_texts, own)
