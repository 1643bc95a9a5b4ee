"""Pixel values before a data preprocessor normalised them, and after."""

from typing import Any

from torch import Tensor

from ..host import normalizes


def denormalize(images: Tensor, data_preprocessor: Any) -> Tensor:
    """Pixel values as they were loaded, mostly 0 to 255, from normalised images (N, C, H, W).

    Args:
        images: Images as the model gets them.
        data_preprocessor: Data preprocessor of the model; it may leave pixel values as they are.
    """
    if not normalizes(data_preprocessor):
        return images
    return images * data_preprocessor.std + data_preprocessor.mean


def normalized_black(images: Tensor, data_preprocessor: Any) -> Tensor:
    """Normalised value of black, (C, 1, 1), of images (..., C, H, W)."""
    if not normalizes(data_preprocessor):
        return images.new_zeros(images.shape[-3], 1, 1)
    return -data_preprocessor.mean / data_preprocessor.std
