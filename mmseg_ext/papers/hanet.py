"""HANet: Cars Can't Fly up in the Sky: Improving Urban-Scene Segmentation via Height-driven
Attention Networks.

Choi, Kim, Choo, CVPR 2020, arXiv 2003.05128. Code: shachoi/HANet (CC BY-NC 4.0, of which nothing is
here).

Rows of street scenes differ: sky above, road below. Gates for each row and channel, made from a
lower map and from where in the whole picture the row lies, multiply a higher map of DeepLabV3+.
Differs from the released code, with the same numbers where nothing else is said:

- a row keeps its position through any transform, crop, flip, window or batch, and rows that are
  padded in a part of their columns count as rows of the picture (as padding there, where the first
  column is);
- positions are looked up once a batch, and without any the input is a whole picture (there nothing
  is added, which a trained network does not stand);
- a gate reads a map once, as means of its rows; the pooled image, constant but for its gate, joins
  the projection as a bias of each row.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.transforms import BaseTransform
from mmengine.model import BaseModule, kaiming_init
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs
from mmseg.models.decode_heads.aspp_head import ASPPModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.decode_heads.fcn_head import FCNHead
from mmseg.registry import MODELS, TRANSFORMS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..errors import UserError
from ..layers.levels import pointwise_of_levels, require_levels, resize
from ..layers.norms import trains_on_one_value

Size = tuple[int, int]  # (h, w)

POSITIONS = 128  # rows of the whole picture that are told apart; the number 128 itself is padding
ROW_MAP = 'gt_row_pos'  # of a pipeline's results
ROW_META = 'row_pos'  # of a sample's metainfo


def mean_of_rows(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, H, 1); a sum, whose gradient is not formed for each pixel."""
    total = x.sum(3, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return (total / x.shape[3]).to(x.dtype)


def maximum_of_rows(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, H, 1)."""
    return x.amax(3, keepdim=True)


POOLS: dict[str, tuple[Callable, Callable]] = {  # over the width, then to a number of rows
    'mean': (mean_of_rows, F.adaptive_avg_pool2d),
    'max': (maximum_of_rows, F.adaptive_max_pool2d),
}


@TRANSFORMS.register_module()
class AddRowPositions(BaseTransform):
    """Adds a map of each pixel's row in the whole picture, from 0 (top) to 127.

    It stands among the ``seg_fields``, which resizes, crops, flips and rotations treat like labels,
    and has to come before all that crop or pad. ``PackRowPositions`` hands it to the model.
    """

    def transform(self, results: dict) -> dict:
        h, w = results['img'].shape[:2]
        rows = (2 * np.arange(h) + 1) * POSITIONS // (2 * h)
        results[ROW_MAP] = np.repeat(rows[:, None].astype(np.uint8), w, axis=1)
        fields = results.setdefault('seg_fields', [])
        if ROW_MAP not in fields:
            fields.append(ROW_MAP)
        return results

    def __repr__(self) -> str:
        return 'AddRowPositions()'


@TRANSFORMS.register_module()
class PackRowPositions(PackSegInputs):
    """The host's ``PackSegInputs``, with the positions of the rows as metainfo ``row_pos``.

    They are uint8 (H,), 0 to 127 and 128 for rows of padding; where rows are mixed, as by a
    rotation, the uppermost counts.

    Raises:
        ValueError: there are no positions, or a transform changed the image without them.
    """

    def transform(self, results: dict) -> dict:
        if ROW_MAP not in results:
            raise UserError(
                "PackRowPositions found no positions of rows: put dict(type='AddRowPositions') "
                'before the first crop of the pipeline'
            )
        positions, size = results[ROW_MAP], results['img'].shape[:2]
        if positions.shape != size:
            raise UserError(
                f'the image is {size} and the positions of its rows {positions.shape}: a transform '
                'left them behind; RandomScaleCrop pads both, Pad does not'
            )
        packed = super().transform(results)
        rows = np.minimum(positions, POSITIONS).min(axis=1)
        packed['data_samples'].set_metainfo({ROW_META: rows})
        return packed


def positions_of(meta: dict, size: Size, rows: int, device: torch.device) -> Tensor:
    """Positions, 0 to 128, of ``rows`` rows of an input: each the first of as many equal parts.

    Args:
        meta: Of the image; ``row_pos`` where the pipeline found it, else the image is a whole
            picture, unless its vertical flip says otherwise. ``window`` and ``window_of`` tell the
            place of the input in it. All may be missing.
        size: (H, W) of the input; what lies below the image is padding.
        rows: Their number.
        device: Of the result.

    Returns:
        (rows,), int64.
    """
    row = torch.arange(rows, device=device) * size[0] // rows
    if 'window' in meta:
        row = row + meta['window'][0]
        height = meta['window_of'][0]
    else:
        height = min(meta['img_shape'][0], size[0]) if 'img_shape' in meta else size[0]
    if ROW_META in meta:
        known = torch.as_tensor(meta[ROW_META], device=device).long()
        inside = row.clamp(max=len(known) - 1)
        return torch.where(row < len(known), known[inside], POSITIONS)
    flipped = meta.get('flip') and meta.get('flip_direction') in ('vertical', 'diagonal')
    upright = height - 1 - row if flipped else row
    return torch.where(row < height, (2 * upright + 1) * POSITIONS // (2 * height), POSITIONS)


def sinusoid_table(count: int, channels: int) -> Tensor:
    """Code (count, channels) of each position: sine and cosine in turn, plus 1, so from 0 to 2.

    As released, their wavelengths grow up to the base 10 beyond 50 channels, else up to 100.
    """
    position = torch.arange(count, dtype=torch.float64)[:, None]
    channel = torch.arange(channels)
    angle = position / (10.0 if channels > 50 else 100.0) ** (2 * (channel // 2) / channels)
    return (torch.where(channel % 2 == 0, angle.sin(), angle.cos()) + 1).float()


class HeightAttention(nn.Module):
    """A gate in (0, 1) for each row and channel of a map, from the rows of another map (Sec. 3.1).

    Signals are (N, C, rows, 1), so that any 2-D norm and dropout works.

    Args:
        in_channels: Of the map that the gates are made from.
        out_channels: Of the map that they multiply.
        rows: How many rows the picture is pooled to, a divisor of 128 (16 in the paper).
        reduction: The first convolution has a so-many-th of ``in_channels``, rounded up.
        num_convs: 3, or 2 without the middle one.
        kernel_size: Of the last convolution.
        injection: The convolution that the code of positions is added before, 1 or 2; 0 for none.
        learned: Codes start at zero and are learned, in place of the sinusoid.
        pooling: 'mean' or 'max', to the rows.
        dropout_ratio: Drops whole channels of the pooled map.
        position_noise: Standard deviation of the shifts of positions in training, in rows before
            they are rounded towards zero.
        norm_cfg: Norm of the convolutions but the last.

    Raises:
        ValueError: an argument is none of these.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        rows: int = 16,
        reduction: int = 64,
        num_convs: int = 3,
        kernel_size: int = 3,
        injection: int = 2,
        learned: bool = False,
        pooling: str = 'mean',
        dropout_ratio: float = 0.1,
        position_noise: float = 0.5,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        _check('rows', rows, [2**i for i in range(8)])
        _check('num_convs', num_convs, (2, 3))
        _check('injection', injection, (0, 1, 2))
        _check('pooling', pooling, POOLS)
        if reduction < 1:
            raise UserError(f'reduction={reduction} would leave no channel: take 1 or more')
        norm_cfg = norm_cfg or dict(type='BN')
        width = -(-in_channels // reduction)
        self.rows = rows
        self.injection = injection
        self.position_noise = position_noise
        self.summarise, self.to_rows = POOLS[pooling]  # (N, C, H, W) to (N, C, H, 1) to rows
        self.dropout = nn.Dropout2d(dropout_ratio)
        self.squeeze = ConvModule(in_channels, width, 1, norm_cfg=norm_cfg)
        self.expand: nn.Module = nn.Identity()
        if num_convs == 3:
            self.expand = ConvModule(
                width, 2 * width, (3, 1), padding=(1, 0), bias=True, norm_cfg=norm_cfg
            )
            width *= 2
        self.conv_gate = nn.Conv2d(
            width, out_channels, (kernel_size, 1), padding=(kernel_size // 2, 0)
        )
        if injection:
            channels = in_channels if injection == 1 else self.squeeze.out_channels
            if learned:
                self.position = nn.Parameter(torch.zeros(rows + 1, channels))
            else:  # saved: released checkpoints hold it
                self.register_buffer('position', sinusoid_table(rows + 1, channels))

    def forward(self, summary: Tensor, index: Tensor) -> Tensor:
        """Gates of a map.

        Args:
            summary: What ``summarise`` leaves of a map (N, C, H, W): (N, C, H, 1).
            index: Positions of the rows (N, rows), int64 from 0 to ``rows``, which is padding.

        Returns:
            (N, out_channels, rows, 1), float32 or better.
        """
        x = self.to_rows(summary, (self.rows, 1))
        if self.injection == 1:
            x = x + self.code(index)
        x = self.squeeze(self.dropout(x))
        if self.injection == 2:
            x = x + self.code(index)
        x = self.conv_gate(self.expand(x))
        return x.to(torch.promote_types(x.dtype, torch.float32)).sigmoid()

    def code(self, index: Tensor) -> Tensor:
        """What is added for positions (N, rows): (N, channels, rows, 1)."""
        if self.training and self.position_noise:
            noise = torch.randn(index.shape, device=index.device) * self.position_noise
            limit = self.rows // 8
            index = (index + noise.trunc().long().clamp(-limit, limit)).clamp(0, self.rows)
        return F.embedding(index, self.position).mT[..., None]


def _check(name: str, value: Any, allowed: Any) -> None:
    if value not in allowed:
        raise UserError(f'{name}={value!r} is not one of {", ".join(map(str, allowed))}')


def at_height(gate: Tensor, like: Tensor) -> Tensor:
    """Gates (N, C, rows, 1) for the map ``like`` (N, C', H, W): (N, C, H, 1), in its type."""
    size = like.shape[2], 1
    return F.interpolate(gate, size, mode='bilinear', align_corners=False).to(like.dtype)


class ReleasedInit(BaseModule):
    """Kaiming's normal distribution for every convolution, by its inputs, and no bias."""

    def init_weights(self) -> None:
        super().init_weights()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_init(module, mode='fan_in')


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

    host_counterpart = dict(type='DepthwiseSeparableASPPHead', c1_channels=48)

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
            _check('gates', i, range(len(gated)))
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


@MODELS.register_module()
class HANetAuxHead(ReleasedInit, FCNHead):
    """The auxiliary head of the paper's recipe, on c3: a 3x3 convolution, trained at its own size.

    Differs from the host's ``FCNHead`` in its loss: the labels are shrunk to the logits, by the
    nearest pixel, and not the logits enlarged.

    Args:
        in_channels: Of the level read, 1024 for ResNet's third.
        in_index: Its place in the backbone's output.
        channels: Of the convolution.
        **kwargs: As for the host's ``FCNHead``; the loss counts 0.4.
    """

    host_counterpart = dict(type='FCNHead', num_convs=1, concat_input=False)

    def __init__(
        self, in_channels: int = 1024, in_index: int = 2, channels: int = 512, **kwargs: Any
    ) -> None:
        loss = dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4)
        defaults: dict[str, Any] = dict(
            num_convs=1, concat_input=False, norm_cfg=dict(type='BN'), loss_decode=loss
        )
        kwargs = dict(init_cfg=None) | defaults | kwargs
        super().__init__(in_channels=in_channels, in_index=in_index, channels=channels, **kwargs)

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict:
        """Losses of logits (N, K, h, w) of any size, on every so-many-th pixel of the labels."""
        label = self._stack_batch_gt(batch_data_samples)
        (h, w), (height, width) = seg_logits.shape[2:], label.shape[2:]
        rows = torch.arange(h, device=label.device) * height // h
        columns = torch.arange(w, device=label.device) * width // w
        shrunk = label[..., rows[:, None], columns]
        samples = [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in shrunk]
        return super().loss_by_feat(seg_logits, samples)
