"""Gated-SCNN's shape stream, its pyramid that sees edges, and the decode head of both."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import kaiming_init, xavier_init
from mmseg.models.backbones.resnet import BasicBlock
from mmseg.models.decode_heads.aspp_head import ASPPModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError
from ...layers.levels import pointwise_of_levels, require_levels, resize
from ...layers.norms import trains_on_one_value
from ...layers.pytorch_init import PyTorchInit
from .edges import class_edges, precise

Maps = dict[str, Tensor]

LOSS_DECODE = MappingProxyType(dict(type='ImageWeightedCELoss'))
LOSS_EDGE = MappingProxyType(dict(type='BalancedEdgeLoss'))
LOSS_ATT = MappingProxyType(dict(type='ImageWeightedCELoss', loss_name='loss_att'))
LOSS_DUAL = MappingProxyType(dict(type='DualTaskLoss'))


class GatedConv(nn.Module):
    """A 1x1 convolution of features that a gate in (0, 1) doubles at most (Sec. 3.1, Eq. 1 and 2).

    The gate reads the features and a map of one channel. As released they are concatenated, here
    each has its own slice of the norm and of the convolution after it: the values are the same.

    Args:
        in_channels: Of the features.
        out_channels: Of the result.
        norm_cfg: Of the norms.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm_cfg: dict) -> None:
        super().__init__()
        self.norm_features = build_norm_layer(norm_cfg, in_channels)[1]
        self.norm_side = build_norm_layer(norm_cfg, 1)[1]
        self.mix_features = nn.Conv2d(in_channels, in_channels + 1, 1)
        self.mix_side = nn.Conv2d(1, in_channels + 1, 1, bias=False)
        self.squeeze = nn.Conv2d(in_channels + 1, 1, 1, bias=False)  # a bias the norm would undo
        self.norm_gate = build_norm_layer(norm_cfg, 1)[1]
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def gate(self, x: Tensor, side: Tensor) -> Tensor:
        """Features (N, C, H, W) and a map (N, 1, H, W) to the gate (N, 1, H, W) in (0, 1)."""
        mixed = self.mix_features(self.norm_features(x))
        mixed += self.mix_side(self.norm_side(side))
        return precise(self.norm_gate(self.squeeze(mixed.relu_()))).sigmoid()

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Features (N, C, H, W) and their gate to (N, C', H, W)."""
        return self.conv(x * (1 + gate).to(x.dtype))


class ShapeStream(nn.Module):
    """A narrow network at full size that finds edges, gated by what deeper levels make of them.

    Args:
        in_channels: Of the first level, and of the levels that gate, fine to coarse.
        channels: After each of the gates, falling.
        norm_cfg: Of the norms.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: Sequence[int], *, norm_cfg: dict
    ) -> None:
        super().__init__()
        first, *deeper = in_channels
        widths = [first, *channels]
        self.sides = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in deeper)
        self.blocks = nn.ModuleList(BasicBlock(w, w, norm_cfg=norm_cfg) for w in widths[:-1])
        self.narrow = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in zip(widths, channels, strict=False)
        )
        self.gated: Any = nn.ModuleList(GatedConv(w, w, norm_cfg=norm_cfg) for w in channels)
        self.conv_edge = nn.Conv2d(widths[-1], 1, 1, bias=False)

    def forward(
        self, levels: Sequence[Tensor], size: Sequence[int], maps: Maps | None = None
    ) -> Tensor:
        """The first level and those that gate to the logits of edges (N, 1, *size), float32.

        What is seen on the way is put into ``maps``, where given.
        """
        first, *deeper = levels
        x = resize(first, size, align_corners=True)
        parts = zip(self.sides, self.blocks, self.narrow, self.gated, deeper, strict=True)
        for i, (side, block, narrow, gated, level) in enumerate(parts, start=1):
            seen = resize(side(level), size, align_corners=True)
            x = narrow(block(x))
            gate = gated.gate(x, seen)
            x = gated(x, gate)
            if maps is not None:
                maps |= {f'side_{i}': seen, f'gate_{i}': gate, f'shape_{i}': x}
        with torch.autocast(x.device.type, enabled=False):
            return self.conv_edge(precise(x))


class EdgePyramid(nn.Module):
    """Dilated convolutions of a level, its mean, and a map of edges, each of ``channels`` (ASPP).

    Args:
        in_channels: Of the level.
        channels: Of each branch.
        dilations: Of the 3x3 convolutions; beside them is a 1x1 convolution.
        edges: Whether there is a branch of edges.
        norm_cfg: Norm after each convolution.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        dilations: Sequence[int],
        edges: bool = True,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        layers: Any = dict(conv_cfg=None, norm_cfg=norm_cfg, act_cfg=dict(type='ReLU'))
        self.image_pool = ConvModule(in_channels, channels, 1, **layers)
        self.edge_conv = ConvModule(1, channels, 1, **layers) if edges else None
        self.aspp = ASPPModule((1, *dilations), in_channels, channels, **layers)
        self.num_branches = 2 + len(dilations) + edges

    def branches(self, x: Tensor, edge: Any) -> Iterator[Tensor]:
        """The image (N, C, 1, 1), edges and the convolutions (N, C, H, W), one after the other.

        Args:
            x: (N, C', H, W).
            edge: (N, 1, H', W'); points of it are taken, without smoothing; None without edges.
        """
        if trains_on_one_value(self.image_pool.norm, len(x)):
            raise UserError(
                'GSCNNHead pools one image to one value a channel, on which batch norm cannot '
                'train: put two or more images into a batch'
            )
        yield self.image_pool(x.mean((2, 3), keepdim=True))
        if self.edge_conv is not None:
            yield self.edge_conv(resize(edge, x.shape[2:], align_corners=True).to(x.dtype))
        for conv in self.aspp:
            yield conv(x)


@MODELS.register_module()
class GSCNNHead(PyTorchInit, BaseDecodeHead):
    """DeepLabV3+ beside a shape stream whose edges the pyramid sees; part of the segmentor GSCNN.

    It reads a fine level and three coarser ones that gate the shape stream, the last of which the
    pyramid reads too. A level before the fine one, the backbone's first convolution in the paper,
    is where the shape stream starts, else the fine one; its channels are those of the stream at
    full size. In training it returns the logits and those of the edges.

    Args:
        in_channels: Of the four or five levels, finest first.
        in_index: Their places in the backbone's output.
        channels: Of the pyramid's branches and the decoder (256 in the paper).
        fine_channels: Of the fine level in the decoder (48 in the paper).
        shape_channels: Of the shape stream after each of its gates.
        dilations: Of the 3x3 convolutions of the pyramid: 12, 24, 36 at an output stride of 8;
            half of that at 16, a quarter at 32.
        shape_stream: Without it this is DeepLabV3+ as the authors compare with.
        edge_radius: Pixels up to so far from another class are edges, as for ``class_edges``.
        skip_class0: Whether class 0 has no edges of its own, as released.
        loss_edge: Of the edges; None for none.
        loss_att: Of the pixels where an edge is predicted, by their classes; None for none.
        edge_threshold: Above this probability an edge is predicted.
        loss_dual: Of the borders between the predicted classes; None for none.
        loss_decode: Of all pixels.
        **kwargs: As for the host's ``BaseDecodeHead``. ``input_transform='resize_concat'``, which
            base models of HRNet have, says that no level is made from another: then all levels but
            the last enter the decoder, for layers of the backbone would learn nothing otherwise.

    Raises:
        ValueError: other numbers of levels, a single output channel, or a shape stream outside of
            ``type='GSCNN'``.
    """

    host_counterpart = dict(type='DepthwiseSeparableASPPHead', c1_channels=48)

    def __init__(
        self,
        *,
        in_channels: Sequence[int] = (64, 128, 256, 512, 4096),
        in_index: Sequence[int] = (0, 1, 2, 3, 4),
        channels: int = 256,
        fine_channels: int = 48,
        shape_channels: Sequence[int] = (32, 16, 8),
        dilations: Sequence[int] = (12, 24, 36),
        shape_stream: bool = True,
        edge_radius: int = 2,
        skip_class0: bool = False,
        loss_decode: Any = LOSS_DECODE,
        loss_edge: Mapping | None = LOSS_EDGE,
        loss_att: Mapping | None = LOSS_ATT,
        edge_threshold: float = 0.8,
        loss_dual: Mapping | None = LOSS_DUAL,
        dropout_ratio: float = 0,
        segmentor: str | None = None,
        **kwargs: Any,
    ) -> None:
        require_levels(self, in_channels)
        if len(in_channels) not in (4, 5):
            raise UserError(
                'GSCNNHead reads a fine level and three coarser ones, and at most one before them, '
                f'got in_channels={list(in_channels)}: give four or five levels'
            )
        if shape_stream and segmentor != 'GSCNN':
            raise UserError(
                "GSCNNHead's shape stream sees edges of the image, which only type='GSCNN' gives: "
                "set model=dict(type='GSCNN') or shape_stream=False"
            )
        parallel = kwargs.get('input_transform') == 'resize_concat'
        kwargs |= dict(input_transform='multiple_select', in_index=in_index)
        if isinstance(loss_decode, Mapping):
            loss_decode = dict(loss_decode)
        super().__init__(
            in_channels,
            channels,
            dropout_ratio=dropout_ratio,
            loss_decode=loss_decode,
            **(dict(init_cfg=None, norm_cfg=dict(type='BN')) | kwargs),
        )
        if self.out_channels == 1:
            raise UserError(
                'GSCNNHead compares classes by a softmax, and one output channel has nothing to '
                'compare with: give the background a class, num_classes=2 and out_channels=2'
            )
        self.fine_levels = slice(-4, -1 if parallel else -3)
        self.shape: Any = None
        self.conv_attention: Any = None
        norm_cfg = self.norm_cfg
        if shape_stream:
            widths = [in_channels[0], *in_channels[-3:]]
            self.shape = ShapeStream(widths, shape_channels, norm_cfg=norm_cfg)
            self.conv_attention = nn.Conv2d(2, 1, 1, bias=False)
        self.pyramid = EdgePyramid(
            in_channels[-1], channels, dilations=dilations, edges=shape_stream, norm_cfg=norm_cfg
        )
        self.bottleneck = nn.Conv2d(self.pyramid.num_branches * channels, channels, 1, bias=False)
        self.fine = nn.Conv2d(sum(in_channels[self.fine_levels]), fine_channels, 1, bias=False)
        layers: Any = dict(kernel_size=3, padding=1, norm_cfg=norm_cfg, act_cfg=self.act_cfg)
        self.decoder: Any = nn.ModuleList(
            [
                ConvModule(fine_channels + channels, channels, **layers),
                ConvModule(channels, channels, **layers),
            ]
        )
        self.conv_seg = nn.Conv2d(channels, self.out_channels, 1, bias=False)
        self.edge_radius = edge_radius
        self.skip_class0 = skip_class0
        self.edge_threshold = edge_threshold
        self.loss_edge, self.loss_att, self.loss_dual = (
            MODELS.build(dict(loss)) if loss and shape_stream else None
            for loss in (loss_edge, loss_att, loss_dual)
        )

    def init_weights(self) -> None:
        """As released: normal distributions for the stream's blocks and gates and the decoder."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, BasicBlock):
                kaiming_init(module.conv1)
                kaiming_init(module.conv2)
            elif isinstance(module, GatedConv):
                xavier_init(module.conv, distribution='normal')
        for conv in (*(layer.conv for layer in self.decoder), self.conv_seg):
            kaiming_init(conv, mode='fan_in')

    def forward(self, inputs: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Levels (N, C_i, H_i, W_i), then edges of the image, to logits (N, K, H_0, W_0).

        Args:
            inputs: Of the backbone or neck, and with a shape stream at last (N, 1, H, W), what the
                segmentor found.

        Returns:
            The logits, at the size of the fine level, and in training those of the shape stream's
            edges, (N, 1, H, W), float32.
        """
        logits, edge = self.run(inputs)
        return logits if edge is None or not self.training else (logits, edge)

    def run(
        self, inputs: Sequence[Tensor], maps: Maps | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of classes and of edges, if any; what is seen on the way goes into ``maps``."""
        edge: Any = None
        attention: Any = None
        if self.shape is None:
            levels = self._transform_inputs(inputs)
        else:
            *inputs, canny = inputs
            levels = self._transform_inputs(inputs)
            edge = self.shape([levels[0], *levels[-3:]], canny.shape[2:], maps)
            attention = self.attend(edge.sigmoid(), canny)
        high = self.project(levels[-1], attention)
        if maps is not None and edge is not None:
            maps |= dict(edge=edge.sigmoid(), attention=attention, pyramid=high)
        return self.cls_seg(self.decode(levels[self.fine_levels], high)), edge

    def attend(self, edge: Tensor, canny: Tensor) -> Tensor:
        """Predicted edges in [0, 1] and the image's, (N, 1, H, W), to one map in [0, 1], float32.

        Without autocast: at 255, the released value of the image's edges, sigmoids saturate.
        """
        of_edge, of_canny = self.conv_attention.weight.flatten().to(edge.dtype)
        return (of_edge * edge + of_canny * canny).sigmoid()

    def project(self, x: Tensor, attention: Tensor | None) -> Tensor:
        """The pyramid over a level (N, C, H, W), projected to (N, channels, H, W).

        The projection of the concatenated branches, as released, is the sum of their projections.
        """
        weights = iter(self.bottleneck.weight.split(self.channels, dim=1))
        parts = (F.conv2d(x, next(weights)) for x in self.pyramid.branches(x, attention))
        image, total = next(parts), next(parts)
        for part in parts:
            total += part
        return total.add_(image)

    def decode(self, fine: Sequence[Tensor], high: Tensor) -> Tensor:
        """Fine levels and the pyramid's result to the features of the logits (N, channels, H, W).

        The first convolution of both together, as released, is the sum of two.
        """
        first, second = self.decoder
        low = pointwise_of_levels(self.fine, fine, align_corners=True)
        weights = first.conv.weight.split([low.shape[1], high.shape[1]], dim=1)
        x = F.conv2d(resize(high, low.shape[2:], align_corners=True), weights[1], padding=1)
        x += F.conv2d(low, weights[0], padding=1)
        x = first.activate(first.norm(x))
        x = second.conv(x)  # by itself: its input is free before the norm
        return second.activate(second.norm(x))

    def loss_by_feat(self, seg_logits: Any, batch_data_samples: list) -> dict[str, Tensor]:
        """Losses of what ``forward`` returns in training, the maps of any size."""
        if self.shape is None:
            return super().loss_by_feat(seg_logits, batch_data_samples)
        logits, edge = seg_logits
        label = self._stack_batch_gt(batch_data_samples)
        size = label.shape[2:]
        logits = resize(precise(logits), size, self.align_corners)
        losses = super().loss_by_feat(logits, batch_data_samples)
        edge = resize(edge, size, align_corners=True)
        own = dict(ignore_index=self.ignore_index)
        if self.loss_edge is not None:
            options = dict(own, radius=self.edge_radius, skip_class0=self.skip_class0)
            target = class_edges(label[:, 0], self.num_classes, **options)
            losses[self.loss_edge.loss_name] = self.loss_edge(edge, target[:, None])
        if self.loss_att is not None:
            elsewhere = edge.detach().sigmoid() <= self.edge_threshold
            attended = label.masked_fill(elsewhere, self.ignore_index)[:, 0]
            losses[self.loss_att.loss_name] = self.loss_att(logits, attended, **own)
        if self.loss_dual is not None:
            losses[self.loss_dual.loss_name] = self.loss_dual(logits, label[:, 0], **own)
        return losses

    @torch.no_grad()
    def explain(self, inputs: Sequence[Tensor]) -> Maps:
        """What the shape stream sees, for ``inputs`` as ``forward`` takes them.

        Returns:
            ``canny``, the image's edges; for each gate ``side_<i>``, what the deeper level shows
            it, ``gate_<i>`` in (0, 1), and ``shape_<i>``, the stream after it (N, C, H, W);
            ``edge``, the probability of an edge; ``attention``, what the pyramid sees;
            ``edge_classes``, the class predicted on an edge, -1 elsewhere. Nothing without a shape
            stream.
        """
        maps: Maps = {}
        logits, edge = self.run(inputs, maps)
        if edge is None:
            return {}
        del maps['pyramid']
        logits = resize(logits, edge.shape[2:], self.align_corners)
        on_edge = maps['edge'] > self.edge_threshold
        classes = torch.where(on_edge, logits.argmax(1, keepdim=True), -1)
        return dict(canny=inputs[-1] > 0) | maps | dict(edge_classes=classes)
