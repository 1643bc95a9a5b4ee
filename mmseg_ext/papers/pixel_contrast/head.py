"""The wrapper head and its projection of features to vectors."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.logging import MessageHub
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError
from ...host import labels_of_batch
from ...layers.feature_tap import WrapperHead
from ...layers.levels import pointwise_of_levels
from ...layers.precision import at_least_float32
from ...layers.sizes import size_of
from ...segmentors.protocols import ExplainsHead, Maps, Point
from .memory import MemoryBank, class_means
from .sampling import labels_at, pixels_at


class Projection(BaseModule):
    """Features to unit vectors: 1x1 convolution, norm, ReLU, 1x1 convolution, L2 norm.

    Args:
        in_channels: Channels of each level.
        channels: Length of the vectors (D).
        norm_cfg: Norm between the convolutions.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, norm_cfg: dict | None) -> None:
        super().__init__()
        width = sum(in_channels)
        self.conv = nn.Conv2d(width, width, 1)
        self.norm = build_norm_layer(norm_cfg or dict(type='BN'), width)[1]
        self.last = nn.Linear(width, channels)

    def forward(self, levels: Sequence[Tensor], align_corners: bool) -> Tensor:
        """Levels (N, C_i, h_i, w_i) to features (N, C, h_0, w_0), as ``unit`` takes them.

        The channels of a pixel lie together in memory, because single pixels are taken out.
        """
        levels = [level.contiguous(memory_format=torch.channels_last) for level in levels]
        return self.norm(pointwise_of_levels(self.conv, levels, align_corners)).relu()

    def unit(self, x: Tensor) -> Tensor:
        """Features (..., C) to unit vectors (..., D), float32 or better."""
        return F.normalize(at_least_float32(self.last(x)), dim=-1)


@MODELS.register_module()
class PixelContrastHead(WrapperHead):
    """Any decode head, trained with a contrast between pixels in addition to its losses.

    At inference it is that head: projection and memory are not used.

    Args:
        head: Config of the decode head, e.g. ``dict(type='FCNHead', channels=512)``. Missing keys
            (``num_classes``, ``in_channels``, ...) come from the base model's ``decode_head``.
        memory: Arguments of a ``MemoryBank``, e.g. ``dict(size=5000)``; None for contrast within a
            batch.
        loss_contrast: Config of the contrast; by default ``dict(type='PixelContrastLoss')``.
        proj_channels: Length of the vectors (D).
        proj_index: Indices of the levels that are projected, resized to the first of them; by
            default all levels that the head reads.
        **kwargs: Further arguments of ``head``.

    Raises:
        UserError: ``proj_index`` names a level that the head does not read, or semi-hard examples
            are asked for without a memory.
    """

    explains_pixels = True
    training_parts = ('projection', 'bank')

    bank: MemoryBank | None

    def __init__(
        self,
        *,
        head: dict,
        memory: dict | None = None,
        loss_contrast: dict | None = None,
        proj_channels: int = 256,
        proj_index: Sequence[int] | int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(head=head, **kwargs)
        self._head_explains = isinstance(self.head, ExplainsHead)
        # A head that concatenates levels knows only the sum of their channels.
        in_channels = {**kwargs, **head}.get('in_channels', self.head.in_channels)
        widths = dict(zip(_as_list(self.head.in_index), _as_list(in_channels), strict=True))
        self.proj_index = list(widths) if proj_index is None else _as_list(proj_index)
        if not self.proj_index or not set(self.proj_index) <= set(widths):
            raise UserError(
                f'proj_index={proj_index} is not among the levels {list(widths)} that '
                f'{type(self.head).__name__} reads: choose from these'
            )
        proj_in = [widths[i] for i in self.proj_index]
        self.projection = Projection(proj_in, proj_channels, self.head.norm_cfg)
        self.loss_contrast = MODELS.build(loss_contrast or dict(type='PixelContrastLoss'))
        self._warned = False
        self.bank = None
        if memory is not None:
            bank = dict(num_classes=self.head.num_classes, channels=proj_channels)
            self.bank = MODELS.build(dict(type='MemoryBank', **bank) | memory)
        if self.loss_contrast.semi_hard is not None and self.bank is None:
            raise UserError(
                'semi_hard draws from past images: set memory=dict(size=5000), or omit semi_hard'
            )

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: list, train_cfg: Any) -> dict:
        """Losses of the head and the contrast; in training the batch is then added to the bank.

        Args:
            inputs: Levels (N, C_i, H_i, W_i) of the backbone or neck.
            batch_data_samples: Data samples with ``gt_sem_seg``, class indices (1, H, W).
            train_cfg: Argument of the head's ``loss``.
        """
        losses, _, logits = self.tap(self.head.loss, inputs, batch_data_samples, train_cfg)
        label = labels_of_batch(self.head, batch_data_samples)
        losses[self.loss_contrast.loss_name] = self._contrast(inputs, logits.detach(), label)
        return losses

    def _contrast(self, inputs: Sequence[Tensor], logits: Tensor, label: Tensor) -> Tensor:
        # None outside of a training. Equal on all processes, as norms and the bank need it.
        iteration = MessageHub.get_current_instance().get_info('iter')
        warms_up = iteration is not None and iteration < self.loss_contrast.warmup_iters
        if warms_up:
            self._warn_of_short_training()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not warms_up):
            features = self._features(inputs)
        size, num_classes = size_of(features), self.head.num_classes
        label = labels_at(label, size, num_classes, self.head.ignore_index)
        if warms_up:
            value = 0.0 * sum(p.sum() for p in self.projection.parameters())
        else:
            prediction = labels_at(self._classes(logits), size, num_classes, num_classes)
            anchors = self.loss_contrast.sample(label, prediction, num_classes)
            vectors = self.projection.unit(pixels_at(features, anchors.pixel_index))
            value = self.loss_contrast(vectors, anchors.classes, anchors.valid, self.bank)
        if self.bank is not None and self.training:
            self.bank.update(label, features.detach(), self.projection.unit)
        return value

    def _warn_of_short_training(self) -> None:
        end = MessageHub.get_current_instance().get_info('max_iters')
        warmup_iters = self.loss_contrast.warmup_iters
        if end is not None and end <= warmup_iters and not self._warned:
            self._warned = True
            warnings.warn(
                f'the training ends after {end} iterations, within the warm-up of the contrast '
                f'({warmup_iters} iterations), which is then never trained: set a smaller '
                'loss_contrast.warmup_iters',
                stacklevel=2,
            )

    def _features(self, inputs: Sequence[Tensor]) -> Tensor:
        levels = [inputs[i] for i in self.proj_index]
        return self.projection(levels, self.head.align_corners)

    def _classes(self, logits: Tensor) -> Tensor:
        """Logits (N, K, h, w) to classes (N, h, w)."""
        if logits.shape[1] == 1:  # two classes in one channel, which the host allows
            return (logits[:, 0].sigmoid() > self.head.threshold).long()
        return logits.max(1).indices  # on a CPU ten times as fast as argmax

    def embed(self, inputs: Sequence[Tensor]) -> Tensor:
        """Levels (N, C_i, H_i, W_i) to unit vectors (N, D, h, w)."""
        return self.projection.unit(self._features(inputs).movedim(1, -1)).movedim(-1, 1)

    @torch.no_grad()
    def explain(
        self,
        levels: Sequence[Tensor],
        *,
        point: Point | None = None,
        label: Tensor | None = None,
        **side_inputs: Any,
    ) -> Maps:
        """Maps of the inner head, and similarities of vectors, for levels (N, C_i, H_i, W_i).

        Returns:
            The maps of the inner head, then ``similarity`` (N, 1, h, w): cosine between the vector
            of each pixel and the vector at ``point``. Without a point, cosine to the mean direction
            of all pixels that are predicted as the same class.
        """
        maps: Maps = {}
        if self._head_explains:
            inner_point = point if self.head.explains_pixels else None
            maps = self.head.explain(levels, point=inner_point, label=label, **side_inputs)
        vectors = self.embed(levels)
        n, _, h, w = vectors.shape
        if point is not None:
            centres = vectors[:, :, int(point[1] * h), int(point[0] * w)][:, None]  # (N, 1, D)
            index = vectors.new_zeros(n, h, w, dtype=torch.long)
        else:
            k = self.head.num_classes
            index = labels_at(self._classes(self.head(levels, **side_inputs)), (h, w), k, k)
            centres = class_means(index, vectors, lambda rows: rows, k)
        similarity = torch.einsum('nkd,ndhw->nkhw', centres, vectors).gather(1, index[:, None])
        return maps | dict(similarity=similarity)


def _as_list(value: Sequence[int] | int) -> list[int]:
    return [value] if isinstance(value, int) else list(value)
