"""Sizes of images and maps, and the padding that preprocessors of the host record in metas."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Size = tuple[int, int]  # (h, w)
Padding = Sequence[int]  # left, right, top, bottom, as in torch.nn.functional.pad


def size_of(x: Tensor) -> Size:
    """Height and width of maps (..., H, W)."""
    h, w = x.shape[-2:]
    return h, w


def input_size(meta: Mapping[str, Any]) -> Size:
    """Size (H, W) of the input that a meta describes, as the host's heads read it."""
    is_window = isinstance(meta['img_shape'], torch.Size)
    h, w = meta['img_shape' if is_window else 'pad_shape'][:2]
    return h, w


def unpadded_size(meta: Mapping[str, Any], size: Sequence[int]) -> Size:
    """Height and width of the image within an input, whose other rows and columns are padding.

    Args:
        meta: Metainfo of the image; without ``img_shape`` nothing is padded.
        size: (H, W) of the input.
    """
    h, w = meta.get('img_shape', size)[:2]
    return min(h, size[0]), min(w, size[1])


def padding_of(meta: Mapping[str, Any]) -> Padding:
    """Pixels that the preprocessor added to an image: left, right, top, bottom.

    Args:
        meta: Metainfo of the image. ``img_padding_size``, recorded in tests, counts before
            ``padding_size``, recorded in training, as in the host's ``postprocess_result``.
    """
    return meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))


def without_padding(x: Tensor, padding: Padding) -> Tensor:
    """View of the part of maps (..., H, W) that is not padding."""
    left, right, top, bottom = padding
    h, w = x.shape[-2:]
    return x[..., top : h - bottom, left : w - right]
