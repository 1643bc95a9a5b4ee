"""The host's ``EncoderDecoder`` with batched sliding windows, heads that need more than features,
and maps that explain a prediction.

Differs from the host in ``slide`` mode: the windows of all images run in batches, heads are told
where each window lies, and an image smaller than the window is padded to it, which heads with a
fixed grid need.

Differs from the host in the constructor: it fills ``num_classes``, ``norm_cfg`` and the levels into
the configs of the heads. It also runs the backbone and the neck once, on a blank 64x64 image, and
compares their levels with those that the heads read.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.errors import UserError
from mmseg_ext.layers.feature_tap import WrapperHead
from mmseg_ext.layers.norms import single_values_refused
from mmseg_ext.layers.precision import wide_dtype
from mmseg_ext.layers.sizes import Size, padding_of, size_of, unpadded_size
from mmseg_ext.segmentors.batches import check_images, check_logits, check_training_batch
from mmseg_ext.segmentors.pairs import check_needed_segmentor
from mmseg_ext.segmentors.protocols import (
    ExplainsBackbone,
    ExplainsHead,
    Maps,
    Pixel,
    TakesSideInputs,
    no_single_pixels,
)
from mmseg_ext.segmentors.shared_keys import (
    SHARED,
    check_levels,
    levels_of_blank_image,
    with_shared_keys,
)
from mmseg_ext.segmentors.windows import Windows, window_meta


@MODELS.register_module()
class WindowedEncoderDecoder(EncoderDecoder):
    """``EncoderDecoder`` whose sliding windows run in batches and whose parts explain themselves.

    ``test_cfg=dict(mode='slide', crop_size=(h, w), stride=(h, w), windows_per_batch=n)`` runs n
    windows at a time. The default is 1 on a CPU, where more windows gain nothing, and 8 on other
    devices; a smaller number needs less memory. The logits are the host's where the image is at
    least as large as the crop. A smaller image is padded to the crop with zeros (the mean colour)
    on the right and below.

    With ``full_height=True`` a window is as high as the image, and at least as high as
    ``crop_size``. Where it is higher, its width and stride grow in proportion. HANet is tested in
    this way at several scales.

    Heads may take further inputs, and all parts may explain themselves: ``segmentors/protocols.py``
    declares the interfaces.

    Args:
        backbone: Config of the backbone; its key ``in_channels`` is 3 if left out.
        decode_head: Config of the head.
        auxiliary_head: Config of an auxiliary head, or a list of them; None for none.
        num_classes: Number of classes of all heads.
        norm_cfg: Norm of all heads.
        ignore_index: Label that the losses of all heads ignore; the default of a head is 255.
        levels: ``dict(in_channels=[...], in_index=[...])`` of all levels, for heads that read
            several of them.
        head_level: Input of a head that reads a single map: one level as
            ``dict(in_channels=..., in_index=...)``, or with HRNet all levels, joined by
            ``input_transform='resize_concat'``.
        **kwargs: Arguments of the host's ``EncoderDecoder``.

    ``num_classes``, ``norm_cfg``, ``ignore_index``, ``levels`` and ``head_level`` stand in a config
    beside ``decode_head``, where a swap of the head keeps them. A key that is written in a head has
    priority.

    Raises:
        UserError: An unknown test mode, a ``slide`` mode without sizes or with gaps between
            windows, or a head that reads other levels than the backbone or neck gives.
    """

    training_parts: Sequence[str] = ('auxiliary_head',)

    def __init__(
        self,
        *,
        backbone: Mapping,
        decode_head: Any,
        auxiliary_head: Any = None,
        num_classes: int | None = None,
        norm_cfg: Mapping | None = None,
        ignore_index: int | None = None,
        levels: Mapping | None = None,
        head_level: Mapping | None = None,
        **kwargs: Any,
    ) -> None:
        values = (num_classes, norm_cfg, ignore_index, levels, head_level)
        shared = dict(zip(SHARED, values, strict=True))
        if auxiliary_head is not None:
            auxiliary_head = with_shared_keys(auxiliary_head, shared)
        decode_head = with_shared_keys(decode_head, shared)
        super().__init__(
            backbone=backbone, decode_head=decode_head, auxiliary_head=auxiliary_head, **kwargs
        )
        if self.test_cfg is not None:
            mode = self.test_cfg.get('mode', 'whole')
            if mode not in ('slide', 'whole'):
                raise UserError(f"test_cfg mode={mode!r}: give 'slide' or 'whole'")
            if mode == 'slide':
                Windows.of(self.test_cfg)
        self.image_channels: int = backbone.get('in_channels', 3)
        check_levels(self._heads(), levels_of_blank_image(self, self.image_channels))

    def _heads(self) -> dict[str, Any]:
        """Heads by the name of their key."""
        if not self.with_auxiliary_head:
            return dict(decode_head=self.decode_head)
        auxiliary = self.auxiliary_head
        if not isinstance(auxiliary, nn.ModuleList):
            return dict(decode_head=self.decode_head, auxiliary_head=auxiliary)
        several = {f'auxiliary_head[{i}]': head for i, head in enumerate(auxiliary)}
        return dict(decode_head=self.decode_head) | several

    def loss(self, inputs: Tensor, data_samples: list) -> dict:
        """Losses of the heads for images (N, C, H, W) and their labels."""
        check_training_batch(inputs, data_samples, self.image_channels, *self.label_limits)
        with single_values_refused(self, len(inputs)):
            return self.compute_losses(inputs, data_samples)

    def compute_losses(self, inputs: Tensor, data_samples: list) -> dict:
        """Losses of a batch that ``loss`` has checked."""
        return super().loss(inputs, data_samples)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Data samples with ``pred_sem_seg`` and ``seg_logits`` of images (N, C, H, W)."""
        check_images(inputs, self.image_channels)
        return super().predict(inputs, data_samples)

    def postprocess_result(self, seg_logits: Tensor, data_samples: list | None = None) -> list:
        """Data samples with the classes of logits (N, K, H, W), which must be finite."""
        check_logits(seg_logits)
        return super().postprocess_result(seg_logits, data_samples)

    @property
    def label_limits(self) -> tuple[int, int]:
        """Number of classes, and the label of ignored pixels."""
        return self.decode_head.num_classes, self.decode_head.ignore_index

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Any:
        """Images (N, 3, H, W) to the output of the head, in eval its logits (N, K, h, w)."""
        side_inputs = self.side_inputs(inputs, data_samples)
        return self.decode_head(self.extract_feat(inputs), **side_inputs)

    def _init_decode_head(self, decode_head: Any) -> None:
        """Builds the decode head, then asks each part which interfaces it has."""
        super()._init_decode_head(decode_head)
        check_needed_segmentor(self)
        head: Any = self.decode_head
        plain_head = head.head if isinstance(head, WrapperHead) else head
        self._takes_side_inputs = isinstance(plain_head, TakesSideInputs)
        self._backbone_explains = isinstance(self.backbone, ExplainsBackbone)
        self._neck_explains = self.with_neck and isinstance(self.neck, ExplainsBackbone)
        # A wrapper without maps passes the call on to the head in it.
        self._head_explains = isinstance(head, ExplainsHead) or isinstance(plain_head, ExplainsHead)
        self._head_explains_pixels = self._head_explains and head.explains_pixels

    def _init_auxiliary_head(self, auxiliary_head: Any) -> None:
        super()._init_auxiliary_head(auxiliary_head)
        check_needed_segmentor(self)

    def side_inputs(self, inputs: Tensor, samples_or_metas: Sequence | None) -> dict[str, Any]:
        """Keyword arguments of the decode head beside the levels of ``inputs`` (N, 3, H, W).

        Args:
            inputs: Preprocessed images.
            samples_or_metas: Data samples or metas, one for each image; None for empty metas.
        """
        if not self._takes_side_inputs:
            return {}
        metas = [
            item.metainfo if isinstance(item, BaseDataElement) else item
            for item in samples_or_metas or [{}] * len(inputs)
        ]
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
        for indices, crops, metas in self._window_batches(inputs, batch_img_metas, windows):
            crop_logits = self.encode_decode(crops, metas)
            for index, logits_of_crop in zip(indices, crop_logits, strict=True):
                logits[index] += logits_of_crop
        logits /= windows.counts(0, logits)[:, None] * windows.counts(1, logits)
        return logits[..., :height, :width]

    def _window_batches(
        self, inputs: Tensor, batch_img_metas: list[dict], windows: Windows
    ) -> Iterator[tuple[list[tuple], Tensor, list[dict]]]:
        """Batches of n windows: indices into ``inputs``, crops (n, 3, h, w), and their metas."""
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
            indices = [
                (i, slice(None), slice(top, top + h), slice(left, left + w))
                for i, top, left in batch
            ]
            crops = torch.stack([inputs[index] for index in indices])
            metas = [
                window_meta(batch_img_metas[i], crops, (top, left), images[i])
                for i, top, left in batch
            ]
            yield indices, crops, metas

    @property
    def explains(self) -> bool:
        """Whether a part of this model has maps for ``explain``."""
        return self._backbone_explains or self._neck_explains or self._head_explains

    @property
    def explains_pixels(self) -> bool:
        """Whether the decode head has maps of a single pixel."""
        return self._head_explains_pixels

    @torch.no_grad()
    def explain(
        self, inputs: Tensor, data_samples: list | None = None, pixel: Pixel | None = None
    ) -> Maps:
        """Maps (N, C, h, w) of all parts of the model for images (N, 3, H, W).

        A backbone or neck that explains itself runs once, by its ``explain``.

        Args:
            inputs: Preprocessed images, as for ``predict``.
            data_samples: Data samples of the images, as for ``predict``.
            pixel: (x, y) of the input, for heads that explain single pixels.

        Raises:
            UserError: A pixel is given, but the head does not explain single pixels.
        """
        levels, maps = _run_or_explain(self.backbone, inputs, self._backbone_explains)
        if self.with_neck:
            levels, neck_maps = _run_or_explain(self.neck, levels, self._neck_explains)
            maps |= neck_maps
        return maps | self.explain_head(levels, inputs, data_samples, pixel)

    def explain_head(
        self,
        levels: Sequence[Tensor],
        inputs: Tensor,
        data_samples: list | None,
        pixel: Pixel | None,
    ) -> Maps:
        """Maps of the decode head for the levels of the backbone or neck; else as ``explain``."""
        if pixel is not None and not self._head_explains_pixels:
            raise no_single_pixels(type(self.decode_head).__name__)
        if not self._head_explains:
            return {}
        height, width = inputs.shape[2:]
        point = None
        if pixel is not None:
            # the centre of the pixel, so that rounding cannot move it to a neighbouring cell
            point = ((pixel[0] + 0.5) / width, (pixel[1] + 0.5) / height)
        return self.decode_head.explain(
            levels,
            point=point,
            label=_labels_of_input(data_samples, (height, width)),
            **self.side_inputs(inputs, data_samples),
        )


def _run_or_explain(module: Any, inputs: Any, explains: bool) -> tuple[Any, Maps]:
    return module.explain(inputs) if explains else (module(inputs), {})


def _labels_of_input(data_samples: list | None, size: Size) -> Tensor | None:
    """Class indices (N, 1, H, W) over inputs of ``size``, 255 on padding; None without labels.

    In testing a label has the size of its file, while the image is resized and padded.
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
