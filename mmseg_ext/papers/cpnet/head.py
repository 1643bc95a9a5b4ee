"""CPNet's decode head."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor

from ...errors import UserError
from ...layers.sizes import Size
from ...segmentors.protocols import Maps, Point
from .affinity import class_ids


class Aggregation(BaseModule):
    """Features of a wide neighbourhood: a 3x3 convolution, then the sum of two branches.

    A branch has two depthwise convolutions: a column and then a row, or a row and then a column.

    Args:
        in_channels: Channels of the features.
        channels: Channels of the result.
        kernel_size: Length of rows and columns, odd.
        **layers: Settings ``conv_cfg``, ``norm_cfg`` and ``act_cfg`` of the convolutions.

    Raises:
        UserError: ``kernel_size`` is even.
    """

    def __init__(
        self, in_channels: int, channels: int, kernel_size: int = 11, **layers: Any
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise UserError(
                f'kernel_size={kernel_size} of Aggregation (am_kernel_size of CPNetHead) has no '
                f'centre: take {kernel_size - 1} or {kernel_size + 1}'
            )
        self.reduce_conv = ConvModule(in_channels, channels, 3, padding=1, **layers)
        column, row = (kernel_size, 1), (1, kernel_size)
        self.t1, self.t2, self.p1, self.p2 = (
            ConvModule(
                channels,
                channels,
                shape,
                padding=(shape[0] // 2, shape[1] // 2),
                groups=channels,
                conv_cfg=layers.get('conv_cfg'),
                act_cfg=None,
            )
            for shape in (column, row, row, column)
        )
        self.norm = build_norm_layer(layers['norm_cfg'], channels)[1]
        self.activate = MODELS.build(layers.get('act_cfg') or dict(type='ReLU'))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H, W)."""
        x = self.reduce_conv(x)
        return self.activate(self.norm(self.t2(self.t1(x)) + self.p2(self.p1(x))))


def resample(x: Tensor, size: Size) -> Tensor:
    """Resizes (N, C, H, W) to (N, C, h, w).

    An axis that shrinks is averaged; an axis that grows is interpolated linearly.
    """
    if x.shape[2:] == size:
        return x
    smaller = (min(x.shape[2], size[0]), min(x.shape[3], size[1]))
    x = F.adaptive_avg_pool2d(x, smaller)
    return F.interpolate(x, size, mode='bilinear', align_corners=False)


@MODELS.register_module()
class CPNetHead(BaseDecodeHead):
    """Context of the same class and of other classes for each pixel, weighted by a learned prior.

    The prior of a pixel holds, for each cell of a fixed grid, the probability that the cell has the
    class of the pixel. ``AffinityLoss`` trains the prior.

    Args:
        in_channels: Channels of the features.
        channels: Channels before the classifier.
        prior_channels: Channels C of the aggregated features.
        prior_size: Rows and columns of the grid, or a single number for a square grid. Use the size
            of the features of a training crop. Features of another size are resampled to the grid.
        am_kernel_size: Length of the rows and columns of the aggregation, odd.
        groups: Groups of the convolution that predicts the prior.
        key_mode: Treatment of features that do not have the prior's size: 'resample' them, or
            'strict' to refuse them.
        pixels_at_once: Number of pixels of an image whose prior is in memory at a time in
            prediction.
        dropout_ratio: Probability that a channel before the classifier is dropped.
        loss_prior: Config of the prior's loss.
        **kwargs: Arguments of ``BaseDecodeHead``. Its cross entropy is the released loss, which
            divides by the number of all pixels, ignored pixels included.

    Raises:
        UserError: An even ``am_kernel_size``, ``groups`` that do not divide ``prior_channels`` and
            the number of cells, or an unknown ``key_mode``.
    """

    host_counterpart = dict(type='PSPHead')
    follows_crop = ('prior_size',)

    def __init__(
        self,
        in_channels: int | Sequence[int],
        channels: int = 512,
        *,
        prior_channels: int = 512,
        prior_size: int | Size = 64,
        am_kernel_size: int = 11,
        groups: int = 1,
        key_mode: str = 'resample',
        pixels_at_once: int = 1024,
        dropout_ratio: float = 0.1,
        loss_prior: dict | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs = dict(norm_cfg=dict(type='BN')) | kwargs
        super().__init__(in_channels, channels, dropout_ratio=dropout_ratio, **kwargs)
        rows, columns = (prior_size,) * 2 if isinstance(prior_size, int) else prior_size
        cells = rows * columns
        if prior_channels % groups or cells % groups:
            raise UserError(
                f'groups={groups} must divide prior_channels={prior_channels} and the '
                f'{rows} x {columns} = {cells} cells of prior_size'
            )
        if key_mode not in ('resample', 'strict'):
            raise UserError(f"key_mode='{key_mode}' is unknown: take 'resample' or 'strict'")
        self.prior_size = (rows, columns)
        self.strict = key_mode == 'strict'
        self.pixels_at_once = pixels_at_once
        layers = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.aggregation = Aggregation(self.in_channels, prior_channels, am_kernel_size, **layers)
        self.prior_conv = ConvModule(
            prior_channels, cells, 1, groups=groups, **dict(layers, act_cfg=None)
        )
        self.intra_conv = ConvModule(prior_channels, prior_channels, 1, **layers)
        self.inter_conv = ConvModule(prior_channels, prior_channels, 1, **layers)
        width = self.in_channels + 2 * prior_channels
        self.bottleneck = ConvModule(width, channels, 3, padding=1, **layers)
        self.loss_prior = MODELS.build(loss_prior or dict(type='AffinityLoss'))

    def forward(self, inputs: list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (N, K, H, W) of the levels; in training also the prior's, (N, cells, H, W)."""
        x = self._transform_inputs(inputs)
        intra, inter, prior = self.contexts(self.aggregation(x))
        feats = torch.cat([x, self.intra_conv(intra), self.inter_conv(inter)], dim=1)
        logits = self.cls_seg(self.bottleneck(feats))
        return logits if prior is None else (logits, prior)

    def contexts(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Means of features over the cells, weighted by the prior and by 1 - prior.

        Args:
            values: Aggregated features (N, C, H, W).

        Returns:
            Context of the same class and context of other classes, each (N, C, H, W); in training
            also the prior's logits (N, cells, H, W), otherwise None.

        Raises:
            UserError: The sizes differ and ``key_mode`` is 'strict'.
        """
        n, c, h, w = values.shape
        if self.strict and (h, w) != self.prior_size:
            raise UserError(
                f'features of {h} x {w} do not fit prior_size={self.prior_size}: use images of '
                "prior_size times the output stride, or key_mode='resample'"
            )
        cells = resample(values, self.prior_size).flatten(2)  # (N, C, cells)
        prior = None
        if self.training:
            prior = self.prior_conv(values)
            intra = cells @ prior.flatten(2).sigmoid()
        else:
            chunks = values.flatten(2)[..., None].split(self.pixels_at_once, dim=2)
            priors = (self.prior_conv(chunk).flatten(2).sigmoid() for chunk in chunks)
            intra = torch.cat([cells @ prior for prior in priors], dim=2)
        intra = intra.view(n, c, h, w) / cells.shape[2]
        return intra, cells.mean(2)[..., None, None] - intra, prior

    def loss_by_feat(self, seg_logits: tuple[Tensor, Tensor], batch_data_samples: list) -> dict:
        """Losses of the logits (N, K, h, w) of any size, and of the prior's logits."""
        logits, prior = seg_logits
        losses = super().loss_by_feat(logits, batch_data_samples)
        label = self._stack_batch_gt(batch_data_samples).squeeze(1)
        return losses | self.loss_prior(prior, label, self.prior_size, self.ignore_index)

    explains_pixels = True

    @torch.no_grad()
    def explain(
        self,
        levels: Sequence[Tensor],
        *,
        point: Point | None = None,
        label: Tensor | None = None,
        **side_inputs: Any,
    ) -> Maps:
        """Prior of a pixel, or without a pixel the contexts of all pixels.

        Returns:
            With a point: ``prior`` (N, 1, *prior_size) in [0, 1], and with a label too
            ``true_affinity``, bool. Without: ``intra_context`` and ``inter_context`` (N, C, H, W).
        """
        values = self.aggregation(self._transform_inputs(levels))
        if point is None:
            intra, inter, _ = self.contexts(values)
            return dict(intra_context=intra, inter_context=inter)
        h, w = values.shape[2:]
        row, column = int(point[1] * h), int(point[0] * w)
        prior = self.prior_conv(values[:, :, row, column, None, None]).sigmoid()
        maps = dict(prior=prior.reshape(-1, 1, *self.prior_size))
        if label is not None:
            pixels, cells = (
                class_ids(label[:, 0], size, self.ignore_index)
                for size in ((h, w), self.prior_size)
            )
            affinity = cells == pixels[:, row * w + column, None]
            maps['true_affinity'] = affinity.view(-1, 1, *self.prior_size)
        return maps
