"""HANet's decode head: DeepLabV3+ with gates."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.aspp_head import ASPPModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError
from ...layers.head_defaults import released_defaults
from ...layers.levels import pointwise_of_levels, require_levels, resize
from ...layers.norms import require_several_images
from ...layers.pointwise import pointwise_of_maps
from ...layers.sizes import Size
from ...segmentors.protocols import Maps, Point
from .attention import (
    HeightAttention,
    at_height,
    attention_arguments,
    mean_of_rows,
    require_choice,
)
from .initialisation import ReleasedInit
from .positions import POSITIONS, ROW_META, positions_of


@MODELS.register_module()
class HANetHead(ReleasedInit, BaseDecodeHead):
    """DeepLabV3+ with a gate for each row and channel of its maps.

    The head reads three levels: the first (c1) and the last two (c3 and c4).

    ====  =======================  ======================
    gate  is computed from         multiplies
    ====  =======================  ======================
    0     c3                       c4
    1     c4                       the pyramid (ASPP)
    2     the pyramid              the projection
    3     the decoder's input      the decoder's output
    4     the decoder's output     the logits
    ====  =======================  ======================

    ``gates=()`` is the DeepLabV3+ that the paper compares with. Unlike the host's DeepLabV3+ it has
    no separable convolutions.

    Args:
        in_channels: Channels of the levels, finest level first.
        in_index: Indices of the levels in the output of the backbone.
        channels: Channels of each branch of the pyramid and of the decoder (256 in the paper).
        low_channels: Channels of c1 in the decoder (48 in the paper).
        dilations: Dilations of the 3x3 convolutions of the pyramid: (12, 24, 36) at output stride
            8, half of that at 16, a quarter at 32, twice that at 4.
        gates: Numbers of the gates to use, from 0 to 4.
        attention: Keyword arguments of ``HeightAttention``, the same for all gates; None takes the
            paper's. Gate 4 always uses the pooling 'max'.
        dropout_ratio: Probability that a channel of the decoder's output is dropped.
        align_corners: Whether resizing aligns corners; gates are always resized without.
        **kwargs: Arguments of ``BaseDecodeHead``. Base models of HRNet have
            ``input_transform='resize_concat'``. HRNet does not compute a level from another level,
            so with this value all levels except the last enter the decoder. Otherwise a part of the
            backbone would get no gradient.

    Raises:
        UserError: A single level, an unknown gate, or an argument that a gate refuses.
    """

    host_counterpart = dict(type='DepthwiseSeparableASPPHead', c1_channels=48)
    reads_levels = True

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        in_index: Sequence[int] | int = (0, 1, 2, 3),
        channels: int = 256,
        low_channels: int = 48,
        dilations: Sequence[int] = (12, 24, 36),
        gates: Sequence[int] = (0, 1, 2, 3),
        attention: Mapping[str, Any] | None = None,
        dropout_ratio: float = 0,
        align_corners: bool = True,
        **kwargs: Any,
    ) -> None:
        require_levels(self, in_channels)
        if len(in_channels) < 2:
            raise UserError(
                f'HANetHead reads a fine level and the last two, got in_channels={in_channels}: '
                'give two or more levels'
            )
        parallel = kwargs.get('input_transform') == 'resize_concat'
        kwargs |= dict(input_transform='multiple_select', in_index=in_index)
        super().__init__(
            in_channels,
            channels,
            dropout_ratio=dropout_ratio,
            align_corners=align_corners,
            **released_defaults(kwargs),
        )
        layers: Any = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        widths = list(in_channels)
        self.num_low = len(widths) - 1 if parallel else 1
        pyramid = (len(dilations) + 2) * channels
        self.image_pool = ConvModule(widths[-1], channels, 1, **layers)
        self.aspp = ASPPModule((1, *dilations), widths[-1], channels, **layers)
        self.bottleneck = ConvModule(pyramid, channels, 1, **layers)
        self.low = ConvModule(sum(widths[: self.num_low]), low_channels, 1, **layers)
        self.decoder = nn.Sequential(
            ConvModule(low_channels + channels, channels, 3, padding=1, **layers),
            ConvModule(channels, channels, 3, padding=1, **layers),
        )
        widths_of_gates = [  # channels of the map it is computed from and of the map it multiplies
            (widths[-2], widths[-1]),
            (widths[-1], pyramid),
            (pyramid, channels),
            (low_channels + channels, channels),
            (channels, self.out_channels),
        ]
        settings = attention_arguments(attention)
        self.rows: int = settings['rows']
        self.pools_means = settings['pooling'] == 'mean'
        self.height_attention = nn.ModuleDict()
        for i in sorted(gates):
            require_choice('gates', i, range(len(widths_of_gates)))
            pooling = dict(pooling='max') if i == 4 else {}
            self.height_attention[str(i)] = HeightAttention(
                *widths_of_gates[i], **settings | pooling, norm_cfg=self.norm_cfg
            )
        self.uses_positions = bool(settings['injection'] and gates)

    def side_inputs(self, metas: Sequence[dict], size: Size) -> dict[str, Tensor]:
        """Positions of the rows of a batch, as keyword arguments of ``forward``.

        Args:
            metas: Metainfo of each image, see ``positions_of``.
            size: Size (H, W) of the input.
        """
        if not self.uses_positions:
            return {}
        if self.training and not all(ROW_META in meta for meta in metas):
            warnings.warn(
                'HANetHead got no positions of rows in training and treats every input as a whole '
                'picture: put AddRowPositions before the crop and PackRowPositions at the end of '
                'the pipeline',
                stacklevel=2,
            )
        device = self.conv_seg.weight.device
        # Metainfo is on the CPU: compute there, and copy the positions of the batch at once.
        source = torch.device('cpu') if any(metas) else device
        position = torch.stack([positions_of(meta, size, self.rows, source) for meta in metas])
        return dict(row_index=(position * self.rows // POSITIONS).to(device, non_blocking=True))

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: list, train_cfg: Any) -> dict:
        """Losses as in ``BaseDecodeHead``, with the positions of the rows."""
        metas = [sample.metainfo for sample in batch_data_samples]
        height, width = batch_data_samples[0].gt_sem_seg.shape[-2:]
        logits = self(inputs, **self.side_inputs(metas, (height, width)))
        return self.loss_by_feat(logits, batch_data_samples)

    def predict(self, inputs: Sequence[Tensor], batch_img_metas: list, test_cfg: Any) -> Tensor:
        """Logits as in ``BaseDecodeHead``, with the positions of the rows."""
        meta = batch_img_metas[0]
        # The same choice as in ``predict_by_feat``: a window's shape is a torch.Size.
        key = 'img_shape' if isinstance(meta['img_shape'], torch.Size) else 'pad_shape'
        height, width = meta.get(key, meta['img_shape'])[:2]
        logits = self(inputs, **self.side_inputs(batch_img_metas, (height, width)))
        return self.predict_by_feat(logits, batch_img_metas)

    def forward(self, inputs: Sequence[Tensor], row_index: Tensor | None = None) -> Tensor:
        """Levels (N, C_i, H_i, W_i) to logits (N, K, H_0, W_0).

        Args:
            inputs: Levels of the backbone or neck.
            row_index: Positions (N, rows), int64, from ``side_inputs``; None for whole pictures.
        """
        return self.run(inputs, row_index)[0]

    def run(
        self, inputs: Sequence[Tensor], row_index: Tensor | None = None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Logits as from ``forward``, and the gates by number, (N, C, rows, 1) in (0, 1)."""
        levels = self._transform_inputs(inputs)
        if row_index is None:
            row_index = torch.arange(self.rows, device=levels[0].device).expand(len(levels[0]), -1)
        gates: dict[int, Tensor] = {}

        def gated(i: int, maps: Sequence[Tensor], sources: Sequence[Tensor]) -> Sequence[Tensor]:
            """Maps times gate ``i``, which is computed from ``sources``."""
            if str(i) not in self.height_attention:
                return maps
            attention: Any = self.height_attention[str(i)]
            summary = torch.cat([attention.summarise(x) for x in sources], dim=1)
            gates[i] = attention(summary, row_index)
            factors = at_height(gates[i], maps[0]).split([x.shape[1] for x in maps], dim=1)
            return [x * factor for x, factor in zip(maps, factors, strict=True)]

        (c4,) = gated(0, levels[-1:], levels[-2:-1])
        means = mean_of_rows(c4)
        pyramid = gated(1, self._pyramid(c4, means), [means if self.pools_means else c4])
        (high,) = gated(2, [self._project(*pyramid)], pyramid)
        low = pointwise_of_levels(self.low.conv, levels[: self.num_low], self.align_corners)
        low = self.low.activate(self.low.norm(low))
        low = torch.cat([low, resize(high, low.shape[2:], self.align_corners)], dim=1)
        (feats,) = gated(3, [self.decoder(low)], [low])
        (logits,) = gated(4, [self.cls_seg(feats)], [feats])
        return logits, gates

    def _pyramid(self, x: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled image (N, C, H, 1), equal in all rows, and the other branches (N, B, H, W)."""
        require_several_images('HANetHead', self.image_pool.norm, len(x))
        image = self.image_pool(means.mean(2, keepdim=True))
        return image.expand(-1, -1, x.shape[2], -1), torch.cat(self.aspp(x), dim=1)

    def _project(self, image: Tensor, branches: Tensor) -> Tensor:
        """Projection of the pyramid, (N, C, H, W).

        The pooled image is equal in a row: its share is computed once per row and added as a bias.
        """
        x = pointwise_of_maps(self.bottleneck.conv, (image, branches))
        return self.bottleneck.activate(self.bottleneck.norm(x))

    explains_pixels = False

    @torch.no_grad()
    def explain(
        self,
        levels: Sequence[Tensor],
        *,
        point: Point | None = None,
        label: Tensor | None = None,
        **side_inputs: Any,
    ) -> Maps:
        """Gates, and the mean probability of each class in each row.

        Returns:
            ``gate_0``, ``gate_1``, ...: the gates (N, C, rows, 1) in (0, 1), where C are the
            channels of the map that is multiplied. ``class_profile`` (N, K, H, 1): the mean
            probability of each class in each row.
        """
        logits, gates = self.run(levels, **side_inputs)
        profile = logits.float().softmax(dim=1).mean(dim=3, keepdim=True)
        return {f'gate_{i}': gate for i, gate in gates.items()} | dict(class_profile=profile)
