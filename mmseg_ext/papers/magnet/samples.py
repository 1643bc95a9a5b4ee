"""Training samples of MagNet's refiners."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmseg.structures import SegDataSample
from torch import Tensor

from ...layers.sizes import Size, padding_of, without_padding
from .patches import Corner, crop_patches, resize
from .points import nearest_index


class Sample(NamedTuple):
    """Patch of an image that a refiner learns from."""

    fine: Tensor  # (1, 3, *patch), the patch at a scale
    corner: Corner
    size: Size  # of the scale
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 of the patch in the coarse prediction
    label: Tensor  # (1, *input_size)


def draw_sample(
    image: Tensor, label: Tensor, sizes: Sequence[Size], *, patch_size: Size, input_size: Size
) -> Sample:
    """Random patch of a random scale of an image.

    Args:
        image: Image (1, 3, H, W).
        label: Its label (H, W).
        sizes: Sizes (h, w) of the scales to choose from.
        patch_size: Size (h, w) of the patch in pixels of its scale.
        input_size: Size (h, w) of the label and of the coarse prediction.
    """
    size = sizes[_draw(len(sizes))]
    y, x = (_draw(n - p + 1) for n, p in zip(size, patch_size, strict=True))
    rows, columns = (
        nearest_index(n, m)[start : start + p][nearest_index(p, out)].to(label.device)
        for n, m, start, p, out in zip(
            label.shape, size, (y, x), patch_size, input_size, strict=True
        )
    )
    (h, w), (input_height, input_width) = patch_size, input_size
    box = (
        x / size[1] * input_width,
        y / size[0] * input_height,
        (x + w) / size[1] * input_width,
        (y + h) / size[0] * input_height,
    )
    fine = crop_patches(resize(image, size), [(y, x)], patch_size)
    return Sample(fine, (y, x), size, box, label[rows[:, None], columns][None])


def _draw(count: int) -> int:
    """Random number below ``count`` from PyTorch's CPU generator, which a resumed run restores."""
    return int(torch.randint(count, ()))


def unpad(image: Tensor, sample: SegDataSample) -> tuple[Tensor, Tensor]:
    """Image (1, 3, h, w) and label (h, w) without the padding of their batch."""
    padding, label = padding_of(sample.metainfo), sample.gt_sem_seg.data[0]
    return without_padding(image, padding)[None], without_padding(label, padding)


def accuracy(scores: Tensor, label: Tensor, ignore_index: int) -> Tensor:
    """Per cent of the valid pixels whose class has the highest of the scores (N, K, h, w)."""
    valid = label != ignore_index
    # On a CPU the indices of max are ten times as fast as argmax.
    correct = (scores.max(1).indices == label) & valid
    return 100 * correct.sum() / valid.sum().clamp(min=1)


def mean_iou(scores: Tensor, label: Tensor, ignore_index: int) -> Tensor:
    """Mean IoU in per cent of the classes in labels (N, h, w) or predictions (N, K, h, w)."""
    k = scores.shape[1]
    pairs = torch.where(label == ignore_index, k * k, label.long() * k + scores.max(1).indices)
    counts = torch.zeros(k * k + 1, dtype=torch.long, device=scores.device)
    counts = counts.index_add_(0, pairs.flatten(), torch.ones_like(pairs).flatten())
    confusion = counts[:-1].view(k, k)  # labels in rows
    intersection = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return 100 * (intersection / union.clamp(min=1)).sum() / (union > 0).sum().clamp(min=1)
