"""The multi-scale test of PyTorch-Encoding, which DANet (arXiv 1809.02983) and FastFCN
(arXiv 1903.11816) report.

It differs from the host's sliding windows and TTA: windows are not moved inside at the border but
filled up with black, a window counts with the exponentials of its logits instead of the logits or
the softmax, and all resizes align corners.
"""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.layers.pixel_values import normalized_black
from mmseg_ext.layers.sizes import Size, size_of, unpadded_size
from mmseg_ext.segmentors.windows import window_meta

from ..errors import UserError

MAX_LOGIT = 80.0  # float32 ends at exp(88.7)


@MODELS.register_module()
class EncodingTTAModel(BaseTTAModel):
    """Predicts from sums over scales of window-averaged exponentials of logits.

    It resizes images by itself: ``tta_pipeline`` loads them as ``test_pipeline`` does, best without
    a resize. At each scale the long side becomes ``ceil(base_size * scale)``. With ``flip`` a
    window's score is the exponential of the sum of its logits and of its mirror image's.

    Args:
        module: The segmentor, or its config.
        base_size: Long side at scale 1, in pixels.
        crop_size: Of the windows, (h, w) or one number for squares, in pixels.
        scales: Scales of the images.
        flip: Whether each window is also seen mirrored.
        stride: Between windows, likewise; by default two thirds of ``crop_size``, rounded down.
        windows_per_batch: How many run at a time: fewer need less memory. By default 1 on a CPU,
            where more gain nothing, and 8 elsewhere.
        data_preprocessor: As for ``BaseTTAModel``.

    Raises:
        ValueError: a size or scale that is not positive, a stride with gaps between windows, or a
            model of one output channel.
    """

    def __init__(
        self,
        module: dict | nn.Module,
        *,
        base_size: int,
        crop_size: int | Size,
        scales: Sequence[float] = (1.0,),
        flip: bool = True,
        stride: int | Size | None = None,
        windows_per_batch: int | None = None,
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        super().__init__(module, data_preprocessor)
        crop = _pair(crop_size)
        steps = (crop[0] * 2 // 3, crop[1] * 2 // 3) if stride is None else _pair(stride)
        if base_size < 1 or not all(1 <= n <= side for n, side in zip(steps, crop, strict=True)):
            raise UserError(
                f'base_size={base_size}, crop_size={crop}, stride={steps}: sizes must be 1 or '
                'more, and a stride at most crop_size, or gaps remain between windows'
            )
        if not scales or min(scales) <= 0:
            raise UserError(f'scales={scales} must name at least one, all above 0')
        if windows_per_batch is not None and windows_per_batch < 1:
            raise UserError(f'windows_per_batch={windows_per_batch} must be 1 or more')
        if self.module.out_channels == 1:
            raise UserError(
                'EncodingTTAModel compares the scores of classes, and this model has one output '
                "channel: take tta_model=dict(type='LogitTTAModel')"
            )
        self.base_size, self.crop_size, self.stride = base_size, crop, steps
        self.scales, self.flip, self.windows_per_batch = scales, flip, windows_per_batch

    def test_step(self, data: dict[str, Any]) -> list[SegDataSample]:
        """Predicts a batch as ``test_pipeline`` packs it.

        Returns:
            The samples with ``seg_logits`` (K, H, W), the logarithms of the scores, in the
            original images' size, and ``pred_sem_seg`` (1, H, W).

        Raises:
            ValueError: the pipeline augments by itself.
        """
        if isinstance(data['inputs'][0], (list, tuple)):
            raise UserError(
                'EncodingTTAModel makes scales and flips itself, and the pipeline packed '
                f'{len(data["inputs"])} augmentations: set tta_pipeline = _base_.test_pipeline'
            )
        data = self.module.data_preprocessor(data, False)
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            h, w = unpadded_size(sample.metainfo, size_of(image))
            scores = self.scores(image[:, :h, :w], sample.metainfo)
            sample.pred_sem_seg = PixelData(data=scores.argmax(dim=0, keepdim=True))
            sample.seg_logits = PixelData(data=scores.log_())
        return data['data_samples']

    def merge_preds(self, data_samples_list: list[list[SegDataSample]]) -> list[SegDataSample]:
        """Not used: windows cannot be merged from whole predictions."""
        raise NotImplementedError('EncodingTTAModel predicts from images: call test_step')

    @torch.no_grad()
    def scores(self, image: Tensor, meta: dict[str, Any]) -> Tensor:
        """Sums over the scales, float32.

        Args:
            image: (3, H, W), normalised.
            meta: Of the image; ``ori_shape`` is the size of the result.

        Returns:
            (K, H', W'), positive, not normalised.
        """
        total: Tensor | None = None
        for scale in self.scales:
            size = self._scaled_size(image, scale)
            resized = _resize(image[None], size)
            own = _resize(self._scores_at_scale(resized, meta), meta['ori_shape'][:2])[0]
            total = own if total is None else total.add_(own)
        assert total is not None
        return total

    def _scaled_size(self, image: Tensor, scale: float) -> Size:
        """(h, w) at a scale; the short side is rounded half up."""
        sides = image.shape[1:]
        long = ceil(self.base_size * scale)
        h, w = (max(1, int(side * long / max(sides) + 0.5)) for side in sides)
        return h, w

    def _scores_at_scale(self, image: Tensor, meta: dict[str, Any]) -> Tensor:
        """Mean scores (1, K, h, w) of the windows that cover each pixel of image (1, 3, h, w)."""
        h, w = image.shape[2:]
        tops, lefts = self._starts(0, h), self._starts(1, w)
        size = tops[-1] + self.crop_size[0], lefts[-1] + self.crop_size[1]
        image = _fill_up(image, size, normalized_black(image, self.module.data_preprocessor))
        scores = image.new_zeros(1, self.module.out_channels, *size)
        visits = image.new_zeros(size)
        for places, crops, metas in self._window_batches(image, tops, lefts, meta, (h, w)):
            for (rows, columns), own in zip(places, self._window_scores(crops, metas), strict=True):
                scores[0, :, rows, columns] += own
                visits[rows, columns] += 1
        return scores.div_(visits)[..., :h, :w]

    def _starts(self, axis: int, length: int) -> list[int]:
        """First pixels of the windows on an axis; the last may reach beyond its ``length``."""
        rest = max(length - self.crop_size[axis], 0)
        return [i * self.stride[axis] for i in range(ceil(rest / self.stride[axis]) + 1)]

    def _window_batches(
        self, image: Tensor, tops: list[int], lefts: list[int], meta: dict, window_of: Size
    ) -> Iterator[tuple[list[tuple[slice, slice]], Tensor, list[dict]]]:
        """Places in the image (1, 3, H, W), crops (n, 3, h, w) from there, and their metas."""
        h, w = self.crop_size
        step = self.windows_per_batch or (1 if image.device.type == 'cpu' else 8)
        corners = [(top, left) for top in tops for left in lefts]
        for batch in (corners[i : i + step] for i in range(0, len(corners), step)):
            places = [(slice(y, y + h), slice(x, x + w)) for y, x in batch]
            crops = torch.cat([image[..., rows, columns] for rows, columns in places])
            yield places, crops, [window_meta(meta, crops, corner, window_of) for corner in batch]

    def _window_scores(self, crops: Tensor, metas: list[dict]) -> Tensor:
        """Windows (n, 3, h, w) to positive scores (n, K, h, w), float32."""
        logits = self.module.encode_decode(crops, metas).float()
        if self.flip:
            logits = logits + self.module.encode_decode(crops.flip(3), metas).float().flip(3)
        return logits.clamp(max=MAX_LOGIT).exp_()


def _pair(size: int | Size) -> Size:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=True)


def _fill_up(image: Tensor, size: Size, color: Tensor) -> Tensor:
    """Image (1, 3, h, w) with ``color`` on the right and below, up to ``size``."""
    h, w = image.shape[2:]
    filled = color.to(image).expand(1, -1, *size).clone()
    filled[..., :h, :w] = image
    return filled
