"""Asking a model for the maps that it explains its predictions with."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor


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
    """What was padded, in pixels of the input: left, right, top, bottom."""
    meta = sample.metainfo
    return meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))


def _without_padding(values: Tensor, size: Sequence[int], padded: Sequence[int]) -> Tensor:
    left, right, top, bottom = padded
    (height, width), (h, w) = size, values.shape[1:]
    rows = slice(round(top * h / height), h - round(bottom * h / height))
    columns = slice(round(left * w / width), w - round(right * w / width))
    return values[:, rows, columns]
