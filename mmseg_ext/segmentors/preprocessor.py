"""The host's data preprocessor with checks of the batch."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ext.errors import UserError
from mmseg_ext.host import normalizes
from mmseg_ext.layers.sizes import size_of


@MODELS.register_module()
class CheckedDataPreProcessor(SegDataPreProcessor):
    """``SegDataPreProcessor`` that says which images do not fit together or have no meaning.

    Images of a single channel, which ``mean`` and ``std`` of three channels make three equal
    channels, are allowed.
    """

    host_counterpart = dict(type='SegDataPreProcessor')

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Normalised images (N, C, H, W) and their samples, padded in training.

        Args:
            data: Images, each (C, H, W), under ``inputs``, and ``data_samples``.
            training: Whether the batch is for a training.

        Raises:
            UserError: There is no image, an image has another number of channels or integers
                beyond 255, or the images differ in size where they are not padded.
        """
        images = data['inputs']
        if len(images) == 0:
            raise UserError('the batch holds no image: give one or more images')
        channels = self.mean.numel() if normalizes(self) else 1
        for image in images:
            _check_image(image, channels)
        self._check_sizes([size_of(image) for image in images], training)
        return super().forward(data, training)

    def _check_sizes(self, sizes: Sequence[tuple[int, int]], training: bool) -> None:
        if training and self.size is None:
            return  # they are padded to the largest
        if training:
            height, width = self.size[-2:]
            padded = {(max(h, height), max(w, width)) for h, w in sizes}
            advice = f'crop them to data_preprocessor.size={(height, width)}'
        else:
            padded = set(sizes)
            advice = 'set batch_size=1 or resize them'
        if len(padded) > 1:
            raise UserError(f'images of a batch differ in size (h, w), {sizes[:4]}: {advice}')


def _check_image(image: Tensor, channels: int) -> None:
    if image.ndim != 3 or (channels > 1 and image.shape[0] not in (1, channels)):
        raise UserError(
            f'an image has the shape {tuple(image.shape)}, and data_preprocessor has mean and std '
            f'of {channels} channels: give images (C, H, W) of these channels'
        )
    if image.is_floating_point() or image.dtype == torch.uint8 or image.numel() == 0:
        return
    low, high = (int(value) for value in torch.aminmax(image.long()))
    if low < 0 or high > 255:
        raise UserError(
            f'an image holds integers from {low} to {high}, but pixels have 8 bits: scale them to '
            '0 to 255'
        )
