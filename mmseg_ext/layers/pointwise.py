"""1x1 convolutions of concatenated maps, computed without the concatenation.

``conv(cat(x_1, x_2, ...)) = conv_1(x_1) + conv_2(x_2) + ...``, where ``conv_i`` has the weights of
the channels of ``x_i``. Each ``conv_i`` runs at the size of its map: a pooled image costs nothing.
"""

from collections.abc import Iterable, Iterator

import torch.nn.functional as F
from torch import Tensor, nn


def outputs_of_parts(conv: nn.Conv2d, parts: Iterable[Tensor]) -> Iterator[Tensor]:
    """Outputs of a 1x1 convolution for each part of its input, (N, C', H_i, W_i); they add up.

    Args:
        conv: Convolution of all channels; its bias is in the first output.
        parts: Maps (N, C_i, H_i, W_i) in the order of the channels; each is read only when its
            output is asked for.

    Raises:
        RuntimeError: the parts do not have the channels of the convolution.
    """
    start, bias = 0, conv.bias
    for x in parts:
        end = start + x.shape[1]
        yield F.conv2d(x, conv.weight[:, start:end], bias)
        start, bias = end, None
    if start != conv.in_channels:
        raise RuntimeError(f'expected {conv.in_channels} channels, got {start}')


def pointwise_of_parts(conv: nn.Conv2d, parts: Iterable[Tensor]) -> Tensor:
    """A 1x1 convolution of concatenated maps (N, C_i, H, W) to (N, C', H, W).

    A part of one row or of one column, such as a pooled image (N, C_i, 1, 1), has the same values
    in all rows or columns. What it adds is a bias.

    Raises:
        RuntimeError: the parts do not have the channels of the convolution.
    """
    total, biases = None, []
    for output in outputs_of_parts(conv, parts):
        if 1 in output.shape[2:]:
            biases.append(output)
        elif total is None:
            total = output
        else:
            total += output
    if total is None:  # the map itself has one row or one column
        biases.sort(key=Tensor.numel)
        total = biases.pop()
    for bias in biases:
        total += bias
    return total
