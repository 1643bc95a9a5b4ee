"""Draws pixels of a batch by class, without waiting for the device."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.sizes import Size


def labels_at(label: Tensor, size: Size, num_classes: int, ignore_index: int) -> Tensor:
    """Labels (N, H, W) resized to (h, w), int64, K where ignored; row i is row floor(i * H / h)."""
    rows, columns = (
        torch.arange(new, device=label.device) * old // new
        for new, old in zip(size, label.shape[1:], strict=True)
    )
    label = label[:, rows[:, None], columns].long()
    has_class = (label >= 0) & (label < num_classes) & (label != ignore_index)
    return label.masked_fill(~has_class, num_classes)


def by_image(label: Tensor, num_classes: int) -> Tensor:
    """Cell ``image * K + class`` of each pixel of labels (N, h, w), (N, h*w); N * K if ignored."""
    image = torch.arange(len(label), device=label.device)[:, None]
    label = label.flatten(1)
    cells = image * num_classes + label
    return cells.masked_fill(label == num_classes, len(label) * num_classes)


def count_cells(cells: Tensor, number: int) -> Tensor:
    """Number of elements in each of ``number`` cells, (number,)."""
    return cells.new_zeros(number).index_add_(0, cells.flatten(), torch.ones_like(cells.flatten()))


def exclusive_cumsum(x: Tensor) -> Tensor:
    """Sum of all elements before each element, along the first dimension."""
    return x.cumsum(0) - x


def draw(cells: Tensor, quota: Tensor, start: Tensor, size: int) -> Tensor:
    """Draws ``quota[c]`` different elements of every cell c at random, without a device wait.

    Args:
        cells: Cell of each element, (L,).
        quota: Number of elements to draw from each cell, (C,); at most the size of the cell.
        start: Position in the result of the first element of each cell, (C,).
        size: Length of the result.

    Returns:
        Indices into ``cells``, (size,); 0 at positions that no element is drawn for.
    """
    order = (cells + torch.rand(cells.shape, dtype=torch.float64, device=cells.device)).argsort()
    cells = cells[order]
    first = exclusive_cumsum(count_cells(cells, len(quota)))
    rank = torch.arange(len(cells), device=cells.device) - first[cells]
    slot = torch.where(rank < quota[cells], start[cells] + rank, size)
    return cells.new_zeros(size + 1).scatter_(0, slot, order)[:size]


class Anchors(NamedTuple):
    """Drawn pixels in a buffer of fixed size."""

    pixel_index: Tensor  # (S,), among the N*h*w pixels of the batch
    classes: Tensor  # (S,)
    valid: Tensor  # (S,), False where the buffer holds no anchor


def pixels_at(maps: Tensor, index: Tensor) -> Tensor:
    """Vectors (S, C) of maps (N, C, h, w) at indices (S,) among the N*h*w pixels."""
    return maps.movedim(1, -1).flatten(0, 2).index_select(0, index)


def sample_anchors(
    label: Tensor, prediction: Tensor, num_classes: int, max_samples: int, max_views: int
) -> Anchors:
    """Segmentation-aware hard anchors: half of them are wrongly predicted pixels (hard ones).

    A class takes part in an image where it has more than ``max_views`` pixels. Each such pair of
    class and image gets the same number of anchors, as large as ``max_samples`` allows. Where a
    pair has too few hard pixels, easy ones replace them, and the other way round.

    Args:
        label: Class indices (N, h, w), K where ignored.
        prediction: Predicted classes (N, h, w).
        num_classes: Number of classes (K).
        max_samples: Largest number of anchors in the batch.
        max_views: Largest number of anchors of a class in an image.
    """
    cells = 2 * by_image(label, num_classes) + (prediction != label).flatten(1)
    groups = len(label) * num_classes
    cells = cells.flatten().clamp(max=2 * groups)  # all ignored pixels form one cell
    easy, hard = count_cells(cells, 2 * groups + 1)[:-1].view(-1, 2).unbind(1)
    counted = easy + hard > max_views
    counted &= counted.cumsum(0) <= max_samples
    views = (max_samples // counted.sum().clamp(min=1)).clamp(1, max_views)
    half = views // 2
    # Half of a single view rounds to 0 hard views: then chance decides.
    half = half + ((views == 1) & (torch.rand(easy.shape, device=easy.device) < 0.5))
    hard_quota = torch.where(2 * hard < views, hard, half)
    hard_quota = torch.where(2 * easy < views, views - easy, hard_quota)
    quota = torch.stack([views - hard_quota, hard_quota], dim=1) * counted[:, None]
    quota = F.pad(quota.flatten(), (0, 1))
    size = min(max_samples, groups * max_views)
    index = draw(cells, quota, exclusive_cumsum(quota), size)
    classes = label.flatten()[index].clamp(max=num_classes - 1)
    return Anchors(index, classes, torch.arange(size, device=index.device) < quota.sum())
