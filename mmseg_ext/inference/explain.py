"""Maps by which a model explains its predictions."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor


def can_explain(model: BaseSegmentor) -> bool:
    """Whether the model has maps: it has ``explain``, and ``explains`` does not deny it."""
    return hasattr(model, 'explain') and getattr(model, 'explains', True)


def can_explain_pixels(model: BaseSegmentor) -> bool:
    """Whether ``explain`` takes a ``pixel``, and ``explains_pixels`` does not deny it."""
    takes = inspect.signature(model.explain).parameters
    return 'pixel' in takes and getattr(model, 'explains_pixels', True)


@torch.no_grad()
def explain_batch(
    model: BaseSegmentor, inputs: Tensor, data_samples: Sequence[SegDataSample], **options: Any
) -> list[dict[str, Tensor]]:
    """For each image of a preprocessed batch its maps (C, h, w), without the input's padding."""
    maps = model.explain(inputs, data_samples, **options)
    size = inputs.shape[2:]
    return [
        {name: _without_padding(values[i], size, padding(sample)) for name, values in maps.items()}
        for i, sample in enumerate(data_samples)
    ]


def padding(sample: SegDataSample) -> tuple[int, int, int, int]:
    """Padding in pixels of the input: left, right, top, bottom."""
    meta = sample.metainfo
    return meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))


def _without_padding(values: Tensor, size: Sequence[int], padded: Sequence[int]) -> Tensor:
    left, right, top, bottom = padded
    (height, width), (h, w) = size, values.shape[1:]
    rows = _inside(round(top * h / height), round(bottom * h / height), h)
    columns = _inside(round(left * w / width), round(right * w / width), w)
    return values[:, rows, columns]


def _inside(before: int, after: int, length: int) -> slice:
    """Slice of an axis without padding, at least one cell: a table (C, H, 1) has one column."""
    start = min(before, length - 1)
    return slice(start, max(start + 1, length - after))
