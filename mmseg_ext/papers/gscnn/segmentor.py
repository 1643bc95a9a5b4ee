"""Gated-SCNN's segmentor: adds the edges of the image to the features of the backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ext.segmentors.windowed import WindowedEncoderDecoder

from ...errors import UserError
from ...layers.pixel_values import denormalize
from ...segmentors.protocols import Maps, Pixel
from .canny import canny
from .head import GSCNNHead


@MODELS.register_module()
class GSCNN(WindowedEncoderDecoder):
    """Any backbone, with ``GSCNNHead``, which reads its levels and Canny's edges of the image.

    Args:
        decode_head: Config of the head, ``dict(type='GSCNNHead', ...)``. Another head works too,
            without the edges.
        canny_input: Input of Canny's method: 'image' is the image as loaded. 'wrapped' is the
            normalised image, cast to bytes that wrap around; the released weights were trained so.
        canny_thresholds: Low and high threshold of |gx| + |gy|, by 3x3 kernels.
        canny_value: Value of an edge (255 as released); other pixels are 0.
        **kwargs: Arguments of ``WindowedEncoderDecoder``.

    Raises:
        UserError: A cascade, an unknown ``canny_input``, or thresholds in the wrong order.
    """

    def __init__(
        self,
        *,
        canny_input: str = 'image',
        canny_thresholds: Sequence[int] = (10, 100),
        canny_value: float = 1.0,
        **kwargs: Any,
    ) -> None:
        if canny_input not in ('image', 'wrapped'):
            raise UserError(f"canny_input={canny_input!r} must be 'image' or 'wrapped'")
        low, high = canny_thresholds
        if not 0 <= low <= high:
            raise UserError(f'canny_thresholds={(low, high)} must be (low, high), both 0 or more')
        super().__init__(**kwargs)
        self.to_bytes = wrapped_bytes if canny_input == 'wrapped' else self._as_loaded
        self.canny_thresholds = low, high
        self.canny_value = canny_value

    def _init_decode_head(self, decode_head: Any) -> None:
        if not isinstance(decode_head, Mapping):
            raise UserError('GSCNN takes one decode head, got a cascade: give one dict')
        super()._init_decode_head(decode_head)
        head = self.decode_head
        self.head_takes_edges = isinstance(head, GSCNNHead) and head.shape is not None

    def image_edges(self, inputs: Tensor) -> Tensor:
        """Canny's edges (N, 1, H, W) of normalised images (N, C, H, W), 0 or ``canny_value``."""
        edges = canny(self.to_bytes(inputs), *self.canny_thresholds)
        return edges.to(inputs) * self.canny_value

    def _as_loaded(self, inputs: Tensor) -> Tensor:
        """Images (N, C, H, W) before normalisation, uint8."""
        inputs = denormalize(inputs, self.data_preprocessor)
        return inputs.round().clamp(0, 255).to(torch.uint8)

    def extract_feat(self, inputs: Tensor) -> Sequence[Tensor]:
        """Levels of images (N, C, H, W), and their edges (N, 1, H, W) where the head needs them."""
        if not self.head_takes_edges:
            return super().extract_feat(inputs)
        edges = self.image_edges(inputs)  # before the backbone, because it may wait for the device
        return (*super().extract_feat(inputs), edges)

    def explain_head(
        self,
        levels: Sequence[Tensor],
        inputs: Tensor,
        data_samples: list | None,
        pixel: Pixel | None,
    ) -> Maps:
        """Maps of the decode head for the levels, to which the edges of the image are added."""
        if self.head_takes_edges:
            levels = (*levels, self.image_edges(inputs))
        return super().explain_head(levels, inputs, data_samples, pixel)


def wrapped_bytes(images: Tensor) -> Tensor:
    """Values truncated and taken modulo 256, as uint8: -1.5 becomes 255, and -0.7 becomes 0."""
    return (images.to(torch.int32) & 255).to(torch.uint8)
