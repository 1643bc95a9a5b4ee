"""Multi-scale test of PyTorch-Encoding, used by DANet (arXiv 1809.02983) and FastFCN (1903.11816).

Differs from the host's sliding windows and test-time augmentation:

- Windows at the border are not moved inwards but padded with black.
- Exponentials of logits are averaged, instead of logits or softmax probabilities.
- All resizes align corners.
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

MAX_LOGIT = 80.0  # the largest float32 is exp(88.7)


@MODELS.register_module()
class EncodingTTAModel(BaseTTAModel):
    """Predicts from exponentials of logits, averaged over windows and summed over scales.

    The score of a pixel is

        sum over scales of resize(mean over windows of exp(z(x) + mirror(z(mirror(x)))))

    with the logits z(x) of a window x; without ``flip`` the second term is absent. The model
    resizes images itself: the long side becomes ``ceil(base_size * scale)``. So ``tta_pipeline``
    should equal ``test_pipeline``, preferably without resize.

    Args:
        module: Segmentor or its config.
        base_size: Long side at scale 1, in pixels.
        crop_size: Size of the windows in pixels, (h, w) or a number for squares.
        scales: Scales of the images.
        flip: Whether each window is also predicted mirrored.
        stride: Stride of the windows in pixels, (h, w) or a number; by default two thirds of
            ``crop_size``, rounded down.
        windows_per_batch: Number of windows per forward pass; fewer need less memory. By default 1
            on a CPU, where larger batches are not faster, and 8 elsewhere.
        data_preprocessor: Preprocessor or its config, as in ``BaseTTAModel``.

    Raises:
        UserError: A size or scale is not positive, the stride leaves gaps between windows, or the
            model has one output channel.
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
            raise UserError(f'scales={scales} must hold at least one scale, all above 0')
        if windows_per_batch is not None and windows_per_batch < 1:
            raise UserError(f'windows_per_batch={windows_per_batch} must be 1 or more')
        if self.module.out_channels == 1:
            raise UserError(
                'EncodingTTAModel compares the scores of classes, and this model has one output '
                "channel: use tta_model=dict(type='LogitTTAModel')"
            )
        self.base_size, self.crop_size, self.stride = base_size, crop, steps
        self.scales, self.flip, self.windows_per_batch = scales, flip, windows_per_batch

    def test_step(self, data: dict[str, Any]) -> list[SegDataSample]:
        """Predicts a batch as ``test_pipeline`` packs it.

        Returns:
            Samples in the size of the original images, with ``seg_logits`` (K, H, W), the
            logarithms of the scores, and ``pred_sem_seg`` (1, H, W).

        Raises:
            UserError: The pipeline augments images.
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
        """Raises an error: this model merges windows, not predictions."""
        raise NotImplementedError('EncodingTTAModel predicts from images: call test_step')

    @torch.no_grad()
    def scores(self, image: Tensor, meta: dict[str, Any]) -> Tensor:
        """Scores of an image, float32: sums over the scales.

        Args:
            image: Normalised image, (3, H, W).
            meta: Meta of the image; ``ori_shape`` is the size of the result.

        Returns:
            Positive scores (K, H', W') that do not sum to 1.
        """
        total: Tensor | None = None
        for scale in self.scales:
            size = self._scaled_size(image, scale)
            resized = _resize(image[None], size)
            scores = _resize(self._scores_at_scale(resized, meta), meta['ori_shape'][:2])[0]
            total = scores if total is None else total.add_(scores)
        assert total is not None
        return total

    def _scaled_size(self, image: Tensor, scale: float) -> Size:
        """Size (h, w) at a scale; the short side is rounded to the nearest pixel."""
        size = image.shape[1:]
        long = ceil(self.base_size * scale)
        h, w = (max(1, int(side * long / max(size) + 0.5)) for side in size)
        return h, w

    def _scores_at_scale(self, image: Tensor, meta: dict[str, Any]) -> Tensor:
        """Mean scores (1, K, h, w) of the windows over each pixel of an image (1, 3, h, w)."""
        h, w = image.shape[2:]
        tops, lefts = self._starts(0, h), self._starts(1, w)
        size = tops[-1] + self.crop_size[0], lefts[-1] + self.crop_size[1]
        image = _fill_up(image, size, normalized_black(image, self.module.data_preprocessor))
        scores = image.new_zeros(1, self.module.out_channels, *size)
        visits = image.new_zeros(size)
        for slices, crops, metas in self._window_batches(image, tops, lefts, meta, (h, w)):
            batch_scores = self._window_scores(crops, metas)
            for (rows, columns), window_scores in zip(slices, batch_scores, strict=True):
                scores[0, :, rows, columns] += window_scores
                visits[rows, columns] += 1
        return scores.div_(visits)[..., :h, :w]

    def _starts(self, axis: int, length: int) -> list[int]:
        """First pixels of the windows on an axis; the last window may end beyond ``length``."""
        remainder = max(length - self.crop_size[axis], 0)
        return [i * self.stride[axis] for i in range(ceil(remainder / self.stride[axis]) + 1)]

    def _window_batches(
        self, image: Tensor, tops: list[int], lefts: list[int], meta: dict, window_of: Size
    ) -> Iterator[tuple[list[tuple[slice, slice]], Tensor, list[dict]]]:
        """Yields slices of the image (1, 3, H, W), crops (n, 3, h, w) at them, and their metas."""
        h, w = self.crop_size
        step = self.windows_per_batch or (1 if image.device.type == 'cpu' else 8)
        corners = [(top, left) for top in tops for left in lefts]
        for batch in (corners[i : i + step] for i in range(0, len(corners), step)):
            slices = [(slice(y, y + h), slice(x, x + w)) for y, x in batch]
            crops = torch.cat([image[..., rows, columns] for rows, columns in slices])
            yield slices, crops, [window_meta(meta, crops, corner, window_of) for corner in batch]

    def _window_scores(self, crops: Tensor, metas: list[dict]) -> Tensor:
        """Positive scores (n, K, h, w), float32, of windows (n, 3, h, w)."""
        logits = self.module.encode_decode(crops, metas).float()
        if self.flip:
            logits = logits + self.module.encode_decode(crops.flip(3), metas).float().flip(3)
        return logits.clamp(max=MAX_LOGIT).exp_()


def _pair(size: int | Size) -> Size:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=True)


def _fill_up(image: Tensor, size: Size, color: Tensor) -> Tensor:
    """Image (1, 3, h, w), padded with ``color`` on the right and below to ``size``."""
    h, w = image.shape[2:]
    filled = color.to(image).expand(1, -1, *size).clone()
    filled[..., :h, :w] = image
    return filled
