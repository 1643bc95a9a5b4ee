"""Patches of a scale: their corners, cropping them from maps, and pasting them into maps."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.sizes import Size

Corner = tuple[int, int]  # (top, left) of a patch, in pixels of a scale


def patch_starts(length: int, patch: int, *, whole_steps: bool = False) -> list[int]:
    """First pixels of the fewest patches that cover an axis.

    Args:
        length: Length of the axis.
        patch: Length of a patch, at most ``length``.
        whole_steps: Whether all steps are the same whole number of pixels, as released. The last
            pixels of the axis may then lie in no patch. Otherwise the last patch ends the axis.
    """
    count = ceil(length / patch)
    gaps = max(count - 1, 1)
    if whole_steps:
        step = int(patch - (count * patch - length) / gaps)
        return [i * step for i in range(count)]
    return [i * (length - patch) // gaps for i in range(count)]


def patch_corners(size: Size, patch: Size, *, whole_steps: bool = False) -> list[Corner]:
    """Corners of all patches of a scale, column after column."""
    tops, lefts = (
        patch_starts(n, p, whole_steps=whole_steps) for n, p in zip(size, patch, strict=True)
    )
    return [(top, left) for left in lefts for top in tops]


def patch_meta(corner: Corner, size: Size, *, patch: Size, input_size: Size) -> dict[str, Any]:
    """Metainfo of a patch for decode heads: its size, and its position in the whole scale.

    Args:
        corner: Corner of the patch.
        size: Size (h, w) of the scale.
        patch: Size (h, w) of the patch.
        input_size: Size (h, w) of the patch in the networks.
    """
    (y, x), (h, w), (input_height, input_width) = corner, patch, input_size
    shape = torch.Size(input_size)  # not a tuple: by this type the host's heads recognise a window
    return dict(
        img_shape=shape,
        ori_shape=shape,
        pad_shape=shape,
        padding_size=[0] * 4,
        window=(y * input_height // h, x * input_width // w),
        window_of=(size[0] * input_height // h, size[1] * input_width // w),
    )


def sampling_matrix(start: float, length: float, out: int, size: int) -> Tensor:
    """RoIAlign on a single axis as a matrix (out, size), float32.

    Args:
        start: Start of the box in pixels; the centre of pixel j lies at j (``aligned=False``).
        length: Length of the box in pixels.
        out: Number of cells of the box; each is the mean of ceil(length / out) samples.
        size: Length of the axis.
    """
    first, extent = torch.tensor(start), torch.tensor(length).clamp(min=1)
    cell = extent / out
    samples = int(torch.ceil(cell))
    steps = (torch.arange(samples) + 0.5) * cell / samples
    at = first + torch.arange(out)[:, None] * cell + steps  # (out, samples)
    inside = (at >= -1) & (at <= size)
    distance = at.clamp(0, size - 1)[..., None] - torch.arange(size)
    return ((1 - distance.abs()).clamp(min=0) * inside[..., None]).mean(dim=1)


def roi_align(maps: Tensor, boxes: Sequence[Sequence[float]], size: Size) -> Tensor:
    """RoIAlign (``aligned=False``, adaptive sampling) without a compiled operator.

    Args:
        maps: Maps (N, C, H, W), or (1, C, H, W) for all boxes.
        boxes: N boxes (x0, y0, x1, y1) in pixels of the maps.
        size: Size (h, w) of the result.

    Returns:
        (N, C, h, w), float32 or better.
    """
    height, width = maps.shape[2:]
    tops, lefts = [], []
    for x0, y0, x1, y1 in boxes:
        tops.append(sampling_matrix(y0, y1 - y0, size[0], height))
        lefts.append(sampling_matrix(x0, x1 - x0, size[1], width))
    rows, columns = (torch.stack(matrices)[:, None].to(maps) for matrices in (tops, lefts))
    return rows @ maps @ columns.mT


@lru_cache(maxsize=8)
def _window_matrix(patch: int, out: int) -> Tensor:
    return sampling_matrix(0.0, float(patch), out, patch + 1)


def crop_windows(maps: Tensor, corners: Sequence[Corner], patch: Size, size: Size) -> Tensor:
    """RoIAlign of boxes of the same size at whole pixels.

    Args:
        maps: Maps (1, C, H, W).
        corners: P corners of boxes inside the maps.
        patch: Size (h, w) of the boxes.
        size: Size (h, w) of the result. If it equals ``patch``, each pixel is the mean of four.

    Returns:
        (P, C, *size).
    """
    boxes = torch.cat([_with_margin(maps, corner, patch) for corner in corners])
    if patch == size:
        return F.avg_pool2d(boxes, 2, stride=1)
    rows, columns = (_window_matrix(p, n).to(boxes) for p, n in zip(patch, size, strict=True))
    return rows @ boxes @ columns.mT


def _with_margin(maps: Tensor, corner: Corner, patch: Size) -> Tensor:
    """Box with a further row below and column to the right; at the border these are repeated."""
    (y, x), (h, w), (height, width) = corner, patch, maps.shape[2:]
    box = maps[..., y : y + h + 1, x : x + w + 1]
    missing = (0, int(x + w == width), 0, int(y + h == height))
    return F.pad(box, missing, mode='replicate') if any(missing) else box


def crop_patches(images: Tensor, corners: Sequence[Corner], patch: Size) -> Tensor:
    """Patches (P, C, *patch) of an image (1, C, H, W)."""
    (h, w) = patch
    return torch.cat([images[..., y : y + h, x : x + w] for y, x in corners])


def resize(x: Tensor, size: Size) -> Tensor:
    """Resizes to (h, w), bilinear like OpenCV: pixels are areas, and shrinking skips pixels."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=False)


def count_covering_patches(
    corners: Sequence[Corner], patch: Size, size: Size, border: int
) -> Tensor:
    """Number of patches that show each pixel, (H, W), float32.

    A frame of ``border`` pixels of each patch does not count.
    """
    (h, w), count = patch, torch.zeros(size)
    for y, x in corners:
        count[y + border : y + h - border, x + border : x + w - border] += 1
    return count


def paste(
    canvas: Tensor, corners: Sequence[Corner], results: Tensor, *, overwrite: bool = False
) -> None:
    """Adds patches (P, K, h, w) to a map (1, K, H, W), or overwrites the map with them in order."""
    (h, w) = results.shape[2:]
    for (y, x), result in zip(corners, results, strict=True):
        window = canvas[0, :, y : y + h, x : x + w]
        window.copy_(result if overwrite else window + result)
