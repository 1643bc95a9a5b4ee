"""Comparison of labels with masks of the objects."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmseg_ext.datasets.transforms import naming

from ...errors import UserError


def read_mask(folder: Path, name: str, size: Sequence[int]) -> Tensor:
    """Mask of the object of an image, bool (H, W): where the PNG of the same name is not 0.

    Raises:
        UserError: The file does not exist or is damaged, or its size is not the image's.
    """
    path = (folder / name).with_suffix('.png')
    if not path.is_file():
        raise UserError(f'{path}, the mask of {name}, does not exist: add it, or omit --masks')
    with naming(str(path), 'a mask'), Image.open(path) as picture:
        mask = np.array(picture)
    if mask.shape != tuple(size):
        raise UserError(
            f'{path} has the shape {mask.shape}, but its image {tuple(size)}: both must have the '
            'same size, and a mask has one channel'
        )
    return torch.from_numpy(mask != 0)


def count_overlap(label: Tensor, mask: Tensor) -> list[int]:
    """Pixels in both, in the label, in the mask, and all pixels of two masks (H, W)."""
    return [int(x.sum()) for x in (label & mask, label, mask)] + [label.numel()]
