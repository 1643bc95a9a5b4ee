"""HANet's decode head: DeepLabV3+ with gates."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.aspp_head import ASPPModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError
from ...layers.levels import pointwise_of_levels, require_levels, resize
from ...layers.norms import trains_on_one_value
from .attention import HeightAttention, at_height, mean_of_rows, require_choice
from .initialisation import ReleasedInit
from .positions import POSITIONS, ROW_META, Size, positions_of


@MODELS.register_module()
class HANetHead(ReleasedInit, BaseDecodeHead):
    """DeepLabV3+ whose maps are gated row by row.

    It reads the first of the levels and the last two: c1, c3 and c4. Gate 0 multiplies c4 by what
    c3 shows, gate 1 the pyramid (ASPP) by c4, gate 2 the projection by the pyramid, gate 3 the
    decoder's output by its input, gate 4 the logits by that output. Without gates this is
    DeepLabV3+ as the authors compare with; it has no separable convolutions, unlike the host's.

    Args:
        in_channels: Of all levels, finest first.
        in_index: Their places in the backbone's output.
        channels: Of the pyramid's branches and the decoder (256 in the paper).
        low_channels: Of c1 in the decoder (48 in the paper).
        expand_channels: Where given, c4 is made from the last level, then c3 itself, by a 1x1
            convolution: 1280 for MobileNetV2, which ends with it in the paper and not in the host.
        dilations: Of the 3x3 convolutions of the pyramid: 12, 24, 36 at an output stride of 8;
            half of that at 16, a quarter at 32, the double at 4.
        gates: Which of the gates 0 to 4 there are.
        rows: As for ``HeightAttention``; so are ``reduction``, ``num_convs``, ``kernel_size``,
            ``injection``, ``learned``, ``pooling`` (gate 4: always 'max'), ``gate_dropout``
            (``dropout_ratio`` there) and ``position_noise``.
        align_corners: For all resizing but that of the gates.
        **kwargs: As for the host's ``BaseDecodeHead``. ``input_transform='resize_concat'``, which
            base models of HRNet have, says that no level is made from another: then all levels but
            the last enter the decoder, for layers of the backbone would learn nothing otherwise.

    Raises:
        ValueError: a single level, an unknown gate, or an argument that a gate refuses.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        in_index: Sequence[int] | int = (0, 1, 2, 3),
        channels: int = 256,
        low_channels: int = 48,
        expand_channels: int | None = None,
        dilations: Sequence[int] = (12, 24, 36),
        gates: Sequence[int] = (0, 1, 2, 3),
        rows: int = 16,
        reduction: int = 64,
        num_convs: int = 3,
        kernel_size: int = 3,
        injection: int = 2,
        learned: bool = False,
        pooling: str = 'mean',
        gate_dropout: float = 0.1,
        position_noise: float = 0.5,
        dropout_ratio: float = 0,
        align_corners: bool = True,
        **kwargs: Any,
    ) -> None:
        require_levels(self, in_channels)
        if len(in_channels) < (1 if expand_channels else 2):
            raise UserError(
                f'HANetHead reads a fine level and the last two, got in_channels={in_channels}: '
                'give two or more levels'
            )
        parallel = kwargs.get('input_transform') == 'resize_concat'
        kwargs |= dict(input_transform='multiple_select', in_index=in_index)
        cross_entropy = dict(type='CrossEntropyLoss', avg_non_ignore=True)
        kwargs = dict(init_cfg=None, norm_cfg=dict(type='BN'), loss_decode=cross_entropy) | kwargs
        super().__init__(
            in_channels,
            channels,
            dropout_ratio=dropout_ratio,
            align_corners=align_corners,
            **kwargs,
        )
        layers: Any = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        widths = list(in_channels)
        self.num_low = len(widths) - 1 if parallel else 1
        self.expand: nn.Module | None = None
        if expand_channels:
            relu6 = layers | dict(act_cfg=dict(type='ReLU6'))
            self.expand = ConvModule(widths[-1], expand_channels, 1, **relu6)
            widths.append(expand_channels)
        pyramid = (len(dilations) + 2) * channels
        self.image_pool = ConvModule(widths[-1], channels, 1, **layers)
        self.aspp = ASPPModule((1, *dilations), widths[-1], channels, **layers)
        self.bottleneck = ConvModule(pyramid, channels, 1, **layers)
        self.low = ConvModule(sum(widths[: self.num_low]), low_channels, 1, **layers)
        self.decoder = nn.Sequential(
            ConvModule(low_channels + channels, channels, 3, padding=1, **layers),
            ConvModule(channels, channels, 3, padding=1, **layers),
        )
        gated = [  # what each gate is made from, what it multiplies
            (widths[-2], widths[-1]),
            (widths[-1], pyramid),
            (pyramid, channels),
            (low_channels + channels, channels),
            (channels, self.out_channels),
        ]
        self.rows = rows
        self.pools_means = pooling == 'mean'
        self.height_attention = nn.ModuleDict()
        for i in sorted(gates):
            require_choice('gates', i, range(len(gated)))
            self.height_attention[str(i)] = HeightAttention(
                *gated[i],
                rows=rows,
                reduction=reduction,
                num_convs=num_convs,
                kernel_size=kernel_size,
                injection=injection,
                learned=learned,
                pooling='max' if i == 4 else pooling,
                dropout_ratio=gate_dropout,
                position_noise=position_noise,
                norm_cfg=self.norm_cfg,
            )
        self.uses_positions = bool(injection and gates)

    def side_inputs(self, metas: Sequence[dict], size: Size) -> dict[str, Tensor]:
        """Positions of the rows of a batch, for ``forward``.

        Args:
            metas: Of each image, as for ``positions_of``.
            size: (H, W) of the input.
        """
        if not self.uses_positions:
            return {}
        if self.training and not all(ROW_META in meta for meta in metas):
            warnings.warn(
                'HANetHead got no positions of rows in training and takes every input for a whole '
                'picture: put AddRowPositions before the crop and PackRowPositions at the end of '
                'the pipeline',
                stacklevel=2,
            )
        device = self.conv_seg.weight.device
        where = torch.device('cpu') if any(metas) else device  # one copy of all that is known
        position = torch.stack([positions_of(meta, size, self.rows, where) for meta in metas])
        return dict(row_index=(position * self.rows // POSITIONS).to(device, non_blocking=True))

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: list, train_cfg: Any) -> dict:
        """As the host's, with the positions of the rows."""
        metas = [sample.metainfo for sample in batch_data_samples]
        height, width = batch_data_samples[0].gt_sem_seg.shape[-2:]
        logits = self(inputs, **self.side_inputs(metas, (height, width)))
        return self.loss_by_feat(logits, batch_data_samples)

    def predict(self, inputs: Sequence[Tensor], batch_img_metas: list, test_cfg: Any) -> Tensor:
        """As the host's, with the positions of the rows."""
        meta = batch_img_metas[0]
        known = 'img_shape' if isinstance(meta['img_shape'], torch.Size) else 'pad_shape'
        height, width = meta.get(known, meta['img_shape'])[:2]  # as `predict_by_feat` has it
        logits = self(inputs, **self.side_inputs(batch_img_metas, (height, width)))
        return self.predict_by_feat(logits, batch_img_metas)

    def forward(self, inputs: Sequence[Tensor], row_index: Tensor | None = None) -> Tensor:
        """Levels (N, C_i, H_i, W_i) to logits (N, K, H_0, W_0).

        Args:
            inputs: Of the backbone or neck.
            row_index: (N, rows), int64, of ``side_inputs``; None for whole pictures.
        """
        return self.run(inputs, row_index)[0]

    def run(
        self, inputs: Sequence[Tensor], row_index: Tensor | None = None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """What ``forward`` returns, and each gate (N, C, rows, 1) in (0, 1)."""
        levels = self._transform_inputs(inputs)
        if self.expand is not None:
            levels = [*levels, self.expand(levels[-1])]
        if row_index is None:
            row_index = torch.arange(self.rows, device=levels[0].device).expand(len(levels[0]), -1)
        gates: dict[int, Tensor] = {}

        def gated(i: int, maps: Sequence[Tensor], seen: Sequence[Tensor]) -> Sequence[Tensor]:
            """The maps times gate ``i``, of what the rows of other maps show."""
            if str(i) not in self.height_attention:
                return maps
            attention: Any = self.height_attention[str(i)]
            summary = torch.cat([attention.summarise(x) for x in seen], dim=1)
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
        """The pooled image (N, C, H, 1), equal in all rows, and the other branches (N, B, H, W)."""
        if trains_on_one_value(self.image_pool.norm, len(x)):
            raise UserError(
                'HANetHead pools one image to one value a channel, on which batch norm cannot '
                'train: put two or more images into a batch'
            )
        image = self.image_pool(means.mean(2, keepdim=True))
        return image.expand(-1, -1, x.shape[2], -1), torch.cat(self.aspp(x), dim=1)

    def _project(self, image: Tensor, branches: Tensor) -> Tensor:
        """The pyramid's projection (N, C, H, W); what the pooled image adds is equal in a row."""
        conv = self.bottleneck.conv
        weights = conv.weight.split([image.shape[1], branches.shape[1]], dim=1)
        x = F.conv2d(branches, weights[1])
        x += F.conv2d(image, weights[0], conv.bias)
        return self.bottleneck.activate(self.bottleneck.norm(x))

    @torch.no_grad()
    def explain(
        self, inputs: Sequence[Tensor], row_index: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What the gates let through, and where the classes lie.

        Returns:
            ``gate_0``, ``gate_1``, ...: (N, C, rows, 1) in (0, 1), of the map that is multiplied;
            ``class_profile`` (N, K, H, 1): mean probability of each class in each row.
        """
        logits, gates = self.run(inputs, row_index)
        profile = logits.float().softmax(dim=1).mean(dim=3, keepdim=True)
        return {f'gate_{i}': gate for i, gate in gates.items()} | dict(class_profile=profile)
