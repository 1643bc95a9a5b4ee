"""Gated-SCNN's segmentor: the image's own edges join the features of the backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ext.segmentors.windowed import Maps, WindowedEncoderDecoder

from ...errors import UserError
from ...layers.pixel_values import denormalize
from .canny import canny


@MODELS.register_module()
class GSCNN(WindowedEncoderDecoder):
    """Any backbone whose levels ``GSCNNHead`` reads together with the edges of the image (Canny's).

    Args:
        decode_head: ``dict(type='GSCNNHead', ...)``.
        canny_input: 'image' finds edges of the image as loaded; 'wrapped' those of the normalised
            image, cast to bytes that wrap around, on which the released weights were trained.
        canny_thresholds: Low and high, of |gx| + |gy| by 3x3 kernels.
        canny_value: Of an edge, elsewhere 0; 255 as released.
        **kwargs: As for ``WindowedEncoderDecoder``.

    Raises:
        ValueError: another head, an unknown ``canny_input``, or thresholds in the wrong order.
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
        self.to_bytes = wrapped if canny_input == 'wrapped' else self._as_loaded
        self.canny_thresholds = low, high
        self.canny_value = canny_value

    def _init_decode_head(self, decode_head: Any) -> None:
        if not isinstance(decode_head, Mapping) or decode_head.get('type') != 'GSCNNHead':
            kind = decode_head.get('type') if isinstance(decode_head, Mapping) else 'a list'
            raise UserError(
                "GSCNN finds edges for one head, decode_head=dict(type='GSCNNHead', ...), got "
                f'{kind}'
            )
        super()._init_decode_head(dict(decode_head, segmentor='GSCNN'))

    def image_edges(self, inputs: Tensor) -> Tensor:
        """Canny's edges of images (N, C, H, W) as the backbone gets them: (N, 1, H, W)."""
        edges = canny(self.to_bytes(inputs), *self.canny_thresholds)
        return edges.to(inputs) * self.canny_value

    def _as_loaded(self, inputs: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) as they were, uint8."""
        inputs = denormalize(inputs, self.data_preprocessor)
        return inputs.round().clamp(0, 255).to(torch.uint8)

    def extract_feat(self, inputs: Tensor) -> Sequence[Tensor]:
        """Levels of images (N, C, H, W), and their edges (N, 1, H, W) where the head needs them."""
        if self.decode_head.shape is None:
            return super().extract_feat(inputs)
        edges = self.image_edges(inputs)  # first: it may wait for the device
        return (*super().extract_feat(inputs), edges)

    def explain_head(
        self, levels: Sequence[Tensor], inputs: Tensor, *args: Any, **kwargs: Any
    ) -> Maps:
        """The head's maps, of the levels and the edges of the image."""
        if self.decode_head.shape is not None:
            levels = (*levels, self.image_edges(inputs))
        return super().explain_head(levels, inputs, *args, **kwargs)


def wrapped(images: Tensor) -> Tensor:
    """Values without their fraction as bytes: -1.5 is 255, -0.7 is 0. uint8, of the same shape."""
    return (images.to(torch.int32) & 255).to(torch.uint8)
