"""1x1 convolutions of concatenated maps, computed without the concatenation.

``W cat(x_1, x_2, ...) + b = W_1 x_1 + b + W_2 x_2 + ...``, where ``W_i`` are the weights of the
channels of ``x_i``. Each product is computed at the size of its map, so that of a pooled image
costs almost nothing.
"""

from collections.abc import Iterable, Iterator

import torch.nn.functional as F
from torch import Tensor, nn


def pointwise_products(conv: nn.Conv2d, maps: Iterable[Tensor]) -> Iterator[Tensor]:
    """Products ``W_1 x_1 + b``, ``W_2 x_2``, ... of a 1x1 convolution, (N, C', H_i, W_i) each.

    Args:
        conv: Convolution of all channels.
        maps: Maps x_i (N, C_i, H_i, W_i) in the order of the channels. A map of an iterator is made
            when its product is needed, and can be freed after it.

    Raises:
        RuntimeError: The channels of the maps do not sum to those of the convolution.
    """
    start, bias = 0, conv.bias
    for x in maps:
        end = start + x.shape[1]
        yield F.conv2d(x, conv.weight[:, start:end], bias)
        start, bias = end, None
    if start != conv.in_channels:
        raise RuntimeError(f'expected {conv.in_channels} channels, got {start}')


def pointwise_of_maps(conv: nn.Conv2d, maps: Iterable[Tensor]) -> Tensor:
    """1x1 convolution of concatenated maps (N, C_i, H, W) to (N, C', H, W).

    A map of one row or one column, such as a pooled image (N, C_i, 1, 1), stands for equal rows or
    columns. Its product is added as a bias.

    Raises:
        RuntimeError: The channels of the maps do not sum to those of the convolution.
    """
    total, biases = None, []
    for product in pointwise_products(conv, maps):
        if 1 in product.shape[2:]:
            biases.append(product)
        elif total is None:
            total = product
        else:
            total += product
    if total is None:  # all maps have one row or one column
        biases.sort(key=Tensor.numel)
        total = biases.pop()
    for bias in biases:
        total += bias
    return total
