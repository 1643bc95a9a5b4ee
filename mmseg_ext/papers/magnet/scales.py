"""Sizes of MagNet's scales."""

from collections.abc import Sequence
from math import ceil, log2
from typing import Any

from ...errors import UserError
from ...layers.sizes import Size


def check_size(name: str, value: Any) -> Size:
    """Size (h, w) of the argument ``name``.

    Raises:
        UserError: The value is no pair of positive integers.
    """
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or not all(isinstance(n, int) and n > 0 for n in value)
    ):
        raise UserError(f'{name}={value} must be (h, w) in pixels')
    return value[0], value[1]


def check_scales(values: Sequence[Any], patch: Size) -> list[Size]:
    """Sizes (h, w) of the argument ``scales``.

    Raises:
        UserError: The scales do not start with the patch, or do not grow.
    """
    scales = [check_size('scales', value) for value in values]
    steps = zip(scales, scales[1:], strict=False)
    if scales[:1] != [patch] or any(a[0] > b[0] or a[1] > b[1] or a == b for a, b in steps):
        raise UserError(
            f'scales={scales} must start with patch_size={patch}, the size of the whole image at '
            'the first scale, and grow'
        )
    return scales


def doubled_sizes(patch: Size, image: Size) -> list[Size]:
    """Sizes of scales from a patch to the image, each at most twice as large as the size before.

    An image that is smaller than the patch on an axis is enlarged to the patch.
    """
    last = [max(p, n) for p, n in zip(patch, image, strict=True)]
    steps = ceil(log2(max(n / p for p, n in zip(patch, last, strict=True))))
    return [
        tuple(round(p * (n / p) ** (s / max(steps, 1))) for p, n in zip(patch, last, strict=True))  # type: ignore[misc]
        for s in range(steps + 1)
    ]


def refiner_index(scale: int, num_refiners: int) -> int:
    """Index of the refiner of a scale; scale 0 is the segmentor alone."""
    return min(num_refiners, scale) - 1


def refined_sizes(sizes: Sequence[Size], index: int, num_refiners: int) -> list[Size]:
    """Sizes of the scales that a refiner is trained on.

    A refiner without a scale in this image is trained on the finest scale.

    Args:
        sizes: Sizes of all scales of an image, two or more.
        index: Index of the refiner.
        num_refiners: Number of refiners.
    """
    numbers = [s for s in range(1, len(sizes)) if refiner_index(s, num_refiners) == index]
    return [sizes[s] for s in numbers or [len(sizes) - 1]]
