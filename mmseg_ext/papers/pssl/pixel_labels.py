"""From the importance of pixels to labels: ranks within an image, in tenths."""

import torch
from torch import Tensor

TENTHS = 10
TOP = TENTHS - 1  # the decile of the most important pixels


def deciles(importance: Tensor) -> Tensor:
    """Decile of each pixel within its image, 0 to 9, uint8 (..., H, W).

    The pixel of rank r among n has the decile floor(10 r / n). Equal values are ranked in the order
    of the raster.

    Args:
        importance: Importance of the pixels, (..., H, W).
    """
    flat = importance.flatten(-2)
    order = flat.argsort(dim=-1, stable=True)
    ranks = torch.arange(flat.shape[-1], device=flat.device).expand_as(order)
    tenths = (ranks * TENTHS // max(flat.shape[-1], 1)).to(torch.uint8)
    return torch.empty_like(tenths).scatter_(-1, order, tenths).view(importance.shape)


def top_decile(importance: Tensor) -> Tensor:
    """Mask of the most important tenth of the pixels, equal to ``deciles(importance) == 9``.

    It selects the smallest of these values instead of sorting all. Of n pixels, n // 10 are in it.

    Args:
        importance: Importance of the pixels, (..., H, W).

    Returns:
        Mask (..., H, W), bool.
    """
    flat = importance.flatten(-2)
    n = flat.shape[-1]
    count = n // TENTHS
    if count == 0:
        return torch.zeros_like(importance, dtype=torch.bool)
    threshold = flat.kthvalue(n - count + 1, dim=-1, keepdim=True).values
    above, equal = flat > threshold, flat == threshold
    # Of equal values the last in the raster are the highest ranks.
    missing = count - above.sum(-1, keepdim=True)
    number_from_end = equal.flip(-1).cumsum(-1).flip(-1)
    return (above | (equal & (number_from_end <= missing))).view(importance.shape)


def labels(foreground: Tensor, class_index: int, background: int) -> Tensor:
    """Label of an image with one class: the class in the foreground, else background.

    Args:
        foreground: Mask, (..., H, W), bool.
        class_index: Class of the image.
        background: Label of all other pixels; the number of classes, so that background is last.

    Returns:
        Labels (..., H, W), int64.
    """
    return torch.where(foreground, class_index, background)
