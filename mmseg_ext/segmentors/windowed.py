"""The host's ``EncoderDecoder`` with batched sliding windows, heads that need more than features,
and maps that explain a prediction.

Differs from the host in ``slide`` mode: the windows of all images run in batches, each knows its
place, and images smaller than the window are padded to it, as heads with a fixed grid need.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.errors import UserError
from mmseg_ext.layers.precision import wide_dtype
from mmseg_ext.layers.sizes import Size, padding_of, size_of, unpadded_size
from mmseg_ext.segmentors.windows import Windows, window_meta

Maps = dict[str, Tensor]


@MODELS.register_module()
class WindowedEncoderDecoder(EncoderDecoder):
    """``EncoderDecoder`` whose sliding windows run in batches and whose parts explain themselves.

    ``test_cfg=dict(mode='slide', crop_size=(h, w), stride=(h, w), windows_per_batch=n)`` runs n
    windows at a time, by default 1 on a CPU, where more gain nothing, and 8 elsewhere: fewer need
    less memory. The logits are the host's where the image is at least as large as the crop; a
    smaller one is padded to it with zeros (the mean colour) on the right and below.

    With ``full_height=True`` a window spans the height of the image, and its width and stride grow
    in proportion where that is more than ``crop_size`` has, as some papers test at several scales.

    A head that needs more than features has ``side_inputs(metas, size) -> dict[str, Tensor]``,
    keyword arguments of its ``forward``: ``metas`` holds one dict for each image, ``size`` is the
    (H, W) of the input. Metas of a window hold its place ``window=(top, left)`` in an image of
    ``window_of=(H, W)``; what the window shows on the right of it and below is padding.

    Raises:
        ValueError: a ``slide`` test mode without sizes, or with gaps between windows.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.test_cfg is not None and self.test_cfg.get('mode') == 'slide':
            Windows.of(self.test_cfg)

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> Any:
        """As the host's.

        Raises:
            ValueError: a head reads other levels than the backbone or neck gives.
        """
        try:
            return super().forward(inputs, data_samples, mode)
        except torch.cuda.OutOfMemoryError:
            raise
        except (IndexError, RuntimeError):
            self._check_levels(inputs)
            raise

    @torch.no_grad()
    def _check_levels(self, inputs: Tensor) -> None:
        training = self.training
        self.eval()  # norms neither learn nor wait for other processes
        given = [level.shape[1] for level in self.extract_feat(inputs)]
        self.train(training)
        for name in ('decode_head', 'auxiliary_head'):
            part = getattr(self, name, None)
            for head in part if isinstance(part, nn.ModuleList) else [part] if part else []:
                if not _reads(head, given):
                    raise UserError(
                        f'{name} reads in_index={head.in_index} of in_channels={head.in_channels}, '
                        f'but the model has {len(given)} levels of {given} channels: these numbers '
                        'are of another backbone, **_base_.levels has those of the base model'
                    )

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Any:
        """Images (N, 3, H, W) to what the head returns, in eval its logits (N, K, h, w)."""
        sides = self.side_inputs(inputs, data_samples)
        return self.decode_head(self.extract_feat(inputs), **sides)

    def side_inputs(self, inputs: Tensor, samples_or_metas: Sequence | None) -> dict[str, Any]:
        """What the decode head needs besides the features of ``inputs`` (N, 3, H, W).

        Where there are neither data samples nor metas, it is asked with an empty dict per image.
        """
        if not hasattr(self.decode_head, 'side_inputs'):
            return {}
        metas = [getattr(one, 'metainfo', one) for one in samples_or_metas or [{}] * len(inputs)]
        return self.decode_head.side_inputs(metas, size_of(inputs))

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Images (N, 3, H, W) to the mean logits (N, K, H, W), float32, of the windows."""
        height, width = inputs.shape[2:]
        windows = Windows.of(self.test_cfg)
        if self.test_cfg.get('full_height'):
            windows = windows.as_high_as(height)
        below, right = (max(0, c - n) for c, n in zip(windows.crop, (height, width), strict=True))
        inputs = F.pad(inputs, (0, right, 0, below)) if below or right else inputs
        size = (len(inputs), self.out_channels, *inputs.shape[2:])
        logits = inputs.new_zeros(size, dtype=wide_dtype(inputs))
        for places, crops, metas in self._window_batches(inputs, batch_img_metas, windows):
            for place, own in zip(places, self.encode_decode(crops, metas), strict=True):
                logits[place] += own
        logits /= windows.counts(0, logits)[:, None] * windows.counts(1, logits)
        return logits[..., :height, :width]

    def _window_batches(
        self, inputs: Tensor, batch_img_metas: list[dict], windows: Windows
    ) -> Iterator[tuple[list[tuple], Tensor, list[dict]]]:
        """Places in the batch of images, crops (n, 3, h, w) from there, and their metas."""
        (h, w), (height, width) = windows.crop, inputs.shape[2:]
        images = [unpadded_size(meta, (height, width)) for meta in batch_img_metas]
        corners = [
            (i, top, left)
            for i in range(len(inputs))
            for top in windows.starts(0, height)
            for left in windows.starts(1, width)
        ]
        step = windows.per_batch or (1 if inputs.device.type == 'cpu' else 8)
        for batch in (corners[i : i + step] for i in range(0, len(corners), step)):
            places = [
                (i, slice(None), slice(top, top + h), slice(left, left + w))
                for i, top, left in batch
            ]
            crops = torch.stack([inputs[place] for place in places])
            metas = [
                window_meta(batch_img_metas[i], crops, (top, left), images[i])
                for i, top, left in batch
            ]
            yield places, crops, metas

    @property
    def explains(self) -> bool:
        """Whether a part of this model has maps for ``explain``."""
        parts = (self.backbone, getattr(self, 'neck', None), self.decode_head)
        return any(hasattr(part, 'explain') for part in parts)

    @property
    def explains_pixels(self) -> bool:
        """Whether the decode head has maps of a single pixel."""
        return 'point' in _arguments_of_explain(self.decode_head)

    @torch.no_grad()
    def explain(
        self,
        inputs: Tensor,
        data_samples: list | None = None,
        *,
        pixel: tuple[int, int] | None = None,
    ) -> Maps:
        """Maps (N, C, H', W') of what the parts of the model saw in images (N, 3, H, W).

        A part that has ``explain`` is asked instead of run. Backbone and neck take what their
        ``forward`` takes and return their levels and a dict of maps; the head takes the levels, its
        side inputs and, where it names them, ``point``, the pixel as fractions (x, y) of the
        input's width and height in [0, 1), and ``label``, class indices (N, 1, H, W) where the data
        samples have them, and returns its maps.

        Args:
            inputs: As for ``predict``.
            data_samples: Likewise.
            pixel: (x, y) of the input, for heads that explain single pixels.

        Raises:
            ValueError: a pixel is asked of a head that explains none.
        """
        levels, maps = _run_or_explain(self.backbone, inputs)
        if self.with_neck:
            levels, more = _run_or_explain(self.neck, levels)
            maps |= more
        return maps | self.explain_head(levels, inputs, data_samples, pixel)

    def explain_head(
        self,
        levels: Sequence[Tensor],
        inputs: Tensor,
        data_samples: list | None,
        pixel: tuple[int, int] | None,
    ) -> Maps:
        """The head's part of ``explain``, of the levels of the backbone or neck."""
        takes = _arguments_of_explain(self.decode_head)
        if pixel is not None and 'point' not in takes:
            name = type(self.decode_head).__name__
            raise UserError(f'{name} does not explain single pixels: leave the pixel away')
        if not takes:
            return {}
        options = self.side_inputs(inputs, data_samples)
        height, width = inputs.shape[2:]
        if pixel is not None:  # its centre: products with whole numbers of cells round safely
            options['point'] = ((pixel[0] + 0.5) / width, (pixel[1] + 0.5) / height)
        if 'label' in takes:
            options['label'] = _labels_of_input(data_samples, (height, width))
        return self.decode_head.explain(levels, **options)


def _reads(head: Any, given: list[int]) -> bool:
    """Whether levels of so many channels are what the head reads."""
    index = [head.in_index] if isinstance(head.in_index, int) else head.in_index
    if not all(-len(given) <= i < len(given) for i in index):
        return False
    read = [given[i] for i in index]
    wanted = head.in_channels
    return sum(read) == wanted if isinstance(wanted, int) else read == list(wanted)


def _arguments_of_explain(head: Any) -> Sequence[str]:
    """Names of what ``head.explain`` takes; none where there is no such method."""
    return list(inspect.signature(head.explain).parameters) if hasattr(head, 'explain') else []


def _run_or_explain(part: Any, x: Any) -> tuple[Any, Maps]:
    return part.explain(x) if hasattr(part, 'explain') else (part(x), {})


def _labels_of_input(data_samples: list | None, size: Size) -> Tensor | None:
    """Class indices (N, 1, H, W) over inputs of ``size``, their padding 255; None without labels.

    Labels keep the size of the file in testing, when images are resized and padded.
    """
    if not data_samples or not all('gt_sem_seg' in sample for sample in data_samples):
        return None
    labels = []
    for sample in data_samples:
        label = sample.gt_sem_seg.data[None]
        if label.shape[2:] != size:
            left, right, top, bottom = padding_of(sample.metainfo)
            inside = (size[0] - top - bottom, size[1] - left - right)
            label = F.interpolate(label.float(), size=inside, mode='nearest-exact').to(label.dtype)
            label = F.pad(label, (left, right, top, bottom), value=255)
        labels.append(label)
    return torch.cat(labels)
