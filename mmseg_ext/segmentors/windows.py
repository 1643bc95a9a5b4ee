"""Sliding windows: their settings, their corners, and the meta of a window."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..layers.sizes import Size


class Windows(NamedTuple):
    """Sliding windows as ``test_cfg`` describes them."""

    crop: Size
    stride: Size
    per_batch: int | None

    @classmethod
    def of(cls, test_cfg: dict) -> 'Windows':
        """Reads ``crop_size`` and ``stride``, each (h, w), and ``windows_per_batch``.

        Raises:
            UserError: An entry is missing or not valid, or the stride leaves gaps.
        """
        crop, stride = (test_cfg.get(key, ()) for key in ('crop_size', 'stride'))
        if not (_is_size(crop) and _is_size(stride)):
            raise UserError(
                "test_cfg mode='slide' needs crop_size=(h, w) and stride=(h, w) in pixels, "
                f'got crop_size={crop or None} and stride={stride or None}'
            )
        if stride[0] > crop[0] or stride[1] > crop[1]:
            raise UserError(
                f'stride={tuple(stride)} leaves gaps between windows of crop_size={tuple(crop)}: '
                'a stride is at most as large as the crop'
            )
        per_batch = test_cfg.get('windows_per_batch')
        if per_batch is not None and not (isinstance(per_batch, int) and per_batch > 0):
            raise UserError(f'windows_per_batch={per_batch} must be a whole number of 1 or more')
        return cls(tuple(crop), tuple(stride), per_batch)

    def as_high_as(self, height: int) -> 'Windows':
        """Windows of this height; width and stride grow in proportion, but never shrink."""
        (h, w), (_, step) = self.crop, self.stride
        larger = max(height, h)
        return Windows((height, w * larger // h), (height, step * larger // h), self.per_batch)

    def starts(self, axis: int, length: int) -> list[int]:
        """First pixel of each window on an axis; the last window ends with the image."""
        last = length - self.crop[axis]
        return [*range(0, last, self.stride[axis]), last]

    def counts(self, axis: int, like: Tensor) -> Tensor:
        """Number of windows over each pixel of an axis (0 or 1) of ``like`` (N, C, H, W)."""
        length = like.shape[2 + axis]
        counts = torch.zeros(length)
        for start in self.starts(axis, length):
            counts[start : start + self.crop[axis]] += 1
        return counts.to(like)


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(n, int) and n > 0 for n in value)
    )


def window_meta(meta: dict, crops: Tensor, corner: tuple[int, int], window_of: Size) -> dict:
    """The meta of a window of ``crops`` (n, 3, h, w) that starts at (top, left) of an image."""
    size = crops.shape[2:]  # a torch.Size, by which the host's heads know a window
    sizes = dict(img_shape=size, pad_shape=size, padding_size=[0] * 4)
    return {**meta, **sizes, 'window': corner, 'window_of': window_of}
