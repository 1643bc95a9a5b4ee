"""Maps with which a model explains its predictions."""

from collections.abc import Sequence

import torch
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_ext.layers.sizes import padding_of
from mmseg_ext.segmentors.protocols import ExplainsModel, Maps, Pixel


def can_explain(model: BaseSegmentor) -> bool:
    """Whether the model has maps to show."""
    return isinstance(model, ExplainsModel) and model.explains


def can_explain_pixels(model: BaseSegmentor) -> bool:
    """Whether the model has maps of single pixels."""
    return isinstance(model, ExplainsModel) and model.explains_pixels


@torch.no_grad()
def explain_batch(
    model: ExplainsModel,
    inputs: Tensor,
    data_samples: list[SegDataSample],
    pixel: Pixel | None = None,
) -> list[Maps]:
    """Maps (C, h, w) of each image of a preprocessed batch, without the padding of the input."""
    maps = model.explain(inputs, data_samples, pixel)
    size = inputs.shape[2:]
    return [
        {
            name: _without_padding(values[i], size, padding_of(sample.metainfo))
            for name, values in maps.items()
        }
        for i, sample in enumerate(data_samples)
    ]


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
