"""Patches of a scale: where they lie, what of a map they show, and pasting them."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, log2

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # (h, w)
Place = tuple[int, int]  # (top, left), in pixels of a scale


def doubled_sizes(patch: Size, image: Size) -> list[Size]:
    """Scales from a patch to the image's own size, each at most twice as large as the one before.

    An image that is smaller than the patch on an axis is enlarged to it.
    """
    last = [max(p, n) for p, n in zip(patch, image, strict=True)]
    steps = ceil(log2(max(n / p for p, n in zip(patch, last, strict=True))))
    return [
        tuple(round(p * (n / p) ** (s / max(steps, 1))) for p, n in zip(patch, last, strict=True))  # type: ignore[misc]
        for s in range(steps + 1)
    ]


def patch_starts(length: int, patch: int, *, floored: bool = False) -> list[int]:
    """First pixels of the patches on an axis, as few as cover it.

    Args:
        length: Of the axis.
        patch: At most ``length``.
        floored: Released: all steps are of one whole number of pixels, so that where sizes do not
            divide the last pixels may stay bare. Ours end with the axis.
    """
    count = ceil(length / patch)
    gaps = max(count - 1, 1)
    if floored:
        step = int(patch - (count * patch - length) / gaps)
        return [i * step for i in range(count)]
    return [i * (length - patch) // gaps for i in range(count)]


def patch_places(size: Size, patch: Size, *, floored: bool = False) -> list[Place]:
    """Corners of all patches of a scale, column after column."""
    tops, lefts = (patch_starts(*one, floored=floored) for one in zip(size, patch, strict=True))
    return [(top, left) for left in lefts for top in tops]


def sampling_matrix(start: float, length: float, out: int, size: int) -> Tensor:
    """One axis of RoIAlign as a matrix (out, size), float32.

    Args:
        start: Of the box, in pixels; the centre of pixel j lies at j (``aligned=False``).
        length: Of the box, in pixels.
        out: Cells into which the box is cut, each the mean of ceil(length / out) samples.
        size: Of the axis.
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
        maps: (N, C, H, W), or (1, C, H, W) for all boxes.
        boxes: N times (x0, y0, x1, y1) in pixels of the maps.
        size: (h, w) of the result.

    Returns:
        (N, C, h, w), float32 or better.
    """
    height, width = maps.shape[2:]
    tops, lefts = [], []
    for x0, y0, x1, y1 in boxes:
        tops.append(sampling_matrix(y0, y1 - y0, size[0], height))
        lefts.append(sampling_matrix(x0, x1 - x0, size[1], width))
    rows, columns = (torch.stack(one)[:, None].to(maps) for one in (tops, lefts))
    return rows @ maps @ columns.mT


@lru_cache(maxsize=8)
def _window_matrix(patch: int, out: int) -> Tensor:
    return sampling_matrix(0.0, float(patch), out, patch + 1)


def windows_of(maps: Tensor, places: Sequence[Place], patch: Size, size: Size) -> Tensor:
    """RoIAlign of boxes of one size at whole pixels.

    Args:
        maps: (1, C, H, W).
        places: P corners of boxes within it.
        patch: (h, w) of the boxes.
        size: (h, w) of the result. Where it is the patch's, each pixel is the mean of four.

    Returns:
        (P, C, *size).
    """
    cut = torch.cat([_with_margin(maps, place, patch) for place in places])
    if patch == size:
        return F.avg_pool2d(cut, 2, stride=1)
    rows, columns = (_window_matrix(*one).to(cut) for one in zip(patch, size, strict=True))
    return rows @ cut @ columns.mT


def _with_margin(maps: Tensor, place: Place, patch: Size) -> Tensor:
    """A box and one more row and column below and right of it, at the end repeated."""
    (y, x), (h, w), (height, width) = place, patch, maps.shape[2:]
    cut = maps[..., y : y + h + 1, x : x + w + 1]
    missing = (0, int(x + w == width), 0, int(y + h == height))
    return F.pad(cut, missing, mode='replicate') if any(missing) else cut


def cut_out(images: Tensor, places: Sequence[Place], patch: Size) -> Tensor:
    """Patches (P, C, *patch) of one image (1, C, H, W)."""
    (h, w) = patch
    return torch.cat([images[..., y : y + h, x : x + w] for y, x in places])


def resize(x: Tensor, size: Size) -> Tensor:
    """Bilinear, to (h, w), as OpenCV's: pixels are areas, and shrinking skips some."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=False)


def inside(places: Sequence[Place], patch: Size, size: Size, border: int) -> Tensor:
    """How many patches show each pixel, not counting a frame of ``border`` pixels of each.

    Returns:
        (H, W), float32.
    """
    (h, w), count = patch, torch.zeros(size)
    for y, x in places:
        count[y + border : y + h - border, x + border : x + w - border] += 1
    return count


def paste(
    canvas: Tensor, places: Sequence[Place], results: Tensor, *, overwrite: bool = False
) -> None:
    """Adds patches (P, K, h, w) to a map (1, K, H, W), or puts them in its place, in order."""
    (h, w) = results.shape[2:]
    for (y, x), result in zip(places, results, strict=True):
        window = canvas[0, :, y : y + h, x : x + w]
        window.copy_(result if overwrite else window + result)
