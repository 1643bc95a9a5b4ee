"""Gated-SCNN's shape stream, its pyramid that reads edges, and the decode head of both."""

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
from ...layers.head_defaults import released_defaults
from ...layers.levels import pointwise_of_levels, require_levels, resize
from ...layers.norms import require_several_images
from ...layers.pointwise import pointwise_of_maps
from ...layers.precision import at_least_float32
from ...layers.pytorch_init import PyTorchInit
from ...segmentors.protocols import Maps, Point
from .edges import class_edges

LOSS_DECODE = MappingProxyType(dict(type='ImageWeightedCELoss'))
LOSS_EDGE = MappingProxyType(dict(type='BalancedEdgeLoss'))
LOSS_ATT = MappingProxyType(dict(type='ImageWeightedCELoss', loss_name='loss_att'))
LOSS_DUAL = MappingProxyType(dict(type='DualTaskLoss'))


class GatedConv(nn.Module):
    """A 1x1 convolution of features times (1 + gate), with a gate in (0, 1) (Sec. 3.1, Eq. 1, 2).

    The gate reads the features and a map of one channel. The released code concatenates both; here
    each has a separate slice of the norm and of the convolution after it, with the same values.

    Args:
        in_channels: Channels of the features.
        out_channels: Channels of the result.
        norm_cfg: Config of the norms.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm_cfg: dict) -> None:
        super().__init__()
        self.norm_features = build_norm_layer(norm_cfg, in_channels)[1]
        self.norm_side = build_norm_layer(norm_cfg, 1)[1]
        self.mix_features = nn.Conv2d(in_channels, in_channels + 1, 1)
        self.mix_side = nn.Conv2d(1, in_channels + 1, 1, bias=False)
        self.squeeze = nn.Conv2d(in_channels + 1, 1, 1, bias=False)  # the norm cancels a bias
        self.norm_gate = build_norm_layer(norm_cfg, 1)[1]
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def init_weights(self) -> None:
        """Draws the slices of the convolution before the ReLU from the bound of all its inputs."""
        bound = self.squeeze.in_channels**-0.5  # PyTorch's, of the features and the map
        for parameter in (*self.mix_features.parameters(), *self.mix_side.parameters()):
            nn.init.uniform_(parameter, -bound, bound)
        xavier_init(self.conv, distribution='normal')

    def gate(self, x: Tensor, side: Tensor) -> Tensor:
        """Features (N, C, H, W) and a map (N, 1, H, W) to the gate (N, 1, H, W) in (0, 1)."""
        mixed = self.mix_features(self.norm_features(x))
        mixed += self.mix_side(self.norm_side(side))
        return at_least_float32(self.norm_gate(self.squeeze(mixed.relu_()))).sigmoid()

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Features (N, C, H, W) and their gate to (N, C', H, W)."""
        return self.conv(x * (1 + gate).to(x.dtype))


class ShapeStream(nn.Module):
    """A narrow network at full size that finds edges; deeper levels of the backbone gate it.

    Args:
        in_channels: Channels of the first level, then of the levels that gate, fine to coarse.
        channels: Channels after each of the gates, from wide to narrow.
        norm_cfg: Config of the norms.
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

        Intermediate maps are put into ``maps`` if it is given.
        """
        first, *deeper = levels
        x = resize(first, size, align_corners=True)
        steps = zip(self.sides, self.blocks, self.narrow, self.gated, deeper, strict=True)
        for i, (side, block, narrow, gated, level) in enumerate(steps, start=1):
            side_map = resize(side(level), size, align_corners=True)
            x = narrow(block(x))
            gate = gated.gate(x, side_map)
            x = gated(x, gate)
            if maps is not None:
                maps |= {f'side_{i}': side_map, f'gate_{i}': gate, f'shape_{i}': x}
        with torch.autocast(x.device.type, enabled=False):
            return self.conv_edge(at_least_float32(x))


class EdgePyramid(nn.Module):
    """ASPP with a branch of edges: dilated convolutions of a level, its mean, and a map of edges.

    Args:
        in_channels: Channels of the level.
        channels: Channels of each branch.
        dilations: Dilations of the 3x3 convolutions; there is also a 1x1 convolution.
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
        """Yields the pooled image (N, C, 1, 1), then edges and convolutions (N, C, H, W).

        Args:
            x: Level (N, C', H, W).
            edge: Map of edges (N, 1, H', W'), which is sampled without smoothing; None without a
                branch of edges.
        """
        require_several_images('GSCNNHead', self.image_pool.norm, len(x))
        yield self.image_pool(x.mean((2, 3), keepdim=True))
        if self.edge_conv is not None:
            yield self.edge_conv(resize(edge, x.shape[2:], align_corners=True).to(x.dtype))
        for conv in self.aspp:
            yield conv(x)


@MODELS.register_module()
class GSCNNHead(PyTorchInit, BaseDecodeHead):
    """DeepLabV3+ whose pyramid reads the edges of a shape stream; part of the segmentor GSCNN.

    It reads a fine level and three coarser levels. The coarser levels gate the shape stream, and
    the pyramid reads the last of them. With five levels the shape stream starts from the first,
    which in the paper is the backbone's first convolution, else from the fine level.

    Args:
        in_channels: Channels of the four or five levels, finest first.
        in_index: Indices of the levels in the backbone's output.
        channels: Channels of the pyramid's branches and of the decoder (256 in the paper).
        fine_channels: Channels of the fine level in the decoder (48 in the paper).
        shape_channels: Channels of the shape stream after each of its gates.
        dilations: Dilations of the pyramid's 3x3 convolutions: 12, 24, 36 at an output stride of 8;
            half of that at 16, a quarter at 32.
        shape_stream: Whether there is a shape stream; without it the head is the DeepLabV3+ that
            the authors compare with.
        edge_radius: Largest distance in pixels of an edge from another class; see ``class_edges``.
        skip_class0: Whether pixels of class 0 count as pixels of no class in the target of the
            edges, as released.
        loss_decode: Config of the loss of all pixels.
        loss_edge: Config of the loss of the edges; None for no such loss.
        loss_att: Config of the loss of the classes on predicted edges; None for no such loss.
        edge_threshold: Probability above which an edge is predicted.
        loss_dual: Config of the loss of the borders between predicted classes; None for no such
            loss.
        **kwargs: Arguments of the host's ``BaseDecodeHead``. With
            ``input_transform='resize_concat'``, as in base models of HRNet, no level is made from
            another level. Then all levels but the last enter the decoder; otherwise some layers of
            the backbone would get no gradient.

    Raises:
        UserError: Another number of levels, or a single output channel.
    """

    reads_levels = True
    explains_pixels = False
    segmentor_advice = (
        "GSCNNHead's shape stream sees edges of the image, which only type='GSCNN' gives: "
        "set model=dict(type='GSCNN') or shape_stream=False"
    )
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
        loss_edge: Mapping | None = LOSS_EDGE,
        loss_att: Mapping | None = LOSS_ATT,
        edge_threshold: float = 0.8,
        loss_dual: Mapping | None = LOSS_DUAL,
        dropout_ratio: float = 0,
        **kwargs: Any,
    ) -> None:
        require_levels(self, in_channels)
        if len(in_channels) not in (4, 5):
            raise UserError(
                'GSCNNHead reads a fine level and three coarser levels, and optionally a level '
                f'before them, got in_channels={list(in_channels)}: give four or five levels'
            )
        parallel = kwargs.get('input_transform') == 'resize_concat'
        kwargs |= dict(input_transform='multiple_select', in_index=in_index)
        super().__init__(
            in_channels,
            channels,
            dropout_ratio=dropout_ratio,
            **released_defaults(kwargs, loss_decode=dict(LOSS_DECODE)),
        )
        if self.out_channels == 1:
            raise UserError(
                'GSCNNHead compares classes by a softmax, and one output channel has nothing to '
                'compare with: give the background a class, num_classes=2 and out_channels=2'
            )
        self.needs_segmentor = 'GSCNN' if shape_stream else None
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
        """Draws blocks, gates and decoder from normal distributions, as released."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, BasicBlock):
                kaiming_init(module.conv1)
                kaiming_init(module.conv2)
            elif isinstance(module, GatedConv):
                module.init_weights()
        for conv in (*(layer.conv for layer in self.decoder), self.conv_seg):
            kaiming_init(conv, mode='fan_in')

    def forward(self, inputs: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Levels (N, C_i, H_i, W_i) to logits (N, K, H_0, W_0), of the size of the fine level.

        Args:
            inputs: Levels of the backbone or neck, and with a shape stream then the edges of the
                image (N, 1, H, W), which the segmentor ``GSCNN`` adds.

        Returns:
            Logits; in training with a shape stream a tuple: logits, and logits of the edges
            (N, 1, H, W), float32.
        """
        logits, edge = self.run(inputs)
        return logits if edge is None or not self.training else (logits, edge)

    def run(
        self, inputs: Sequence[Tensor], maps: Maps | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of classes, and of edges or None; intermediate maps go into ``maps``, if given."""
        edge: Any = None
        attention: Any = None
        if self.shape is None:
            levels = self._transform_inputs(inputs)
        else:
            *inputs, canny = inputs
            if canny.shape[1] != 1:
                raise UserError(self.segmentor_advice)
            levels = self._transform_inputs(inputs)
            edge = self.shape([levels[0], *levels[-3:]], canny.shape[2:], maps)
            attention = self.attend(edge.sigmoid(), canny)
        high = self.project(levels[-1], attention)
        if maps is not None and edge is not None:
            maps |= dict(edge=edge.sigmoid(), attention=attention, pyramid=high)
        return self.cls_seg(self.decode(levels[self.fine_levels], high)), edge

    def attend(self, edge: Tensor, canny: Tensor) -> Tensor:
        """Predicted edges and edges of the image, (N, 1, H, W), to a map in [0, 1], float32.

        It is computed without autocast: with 255, the released value of the image's edges, the
        sigmoid saturates.
        """
        of_edge, of_canny = self.conv_attention.weight.flatten().to(edge.dtype)
        return (of_edge * edge + of_canny * canny).sigmoid()

    def project(self, x: Tensor, attention: Tensor | None) -> Tensor:
        """The pyramid over a level (N, C, H, W), projected to (N, channels, H, W).

        The released code concatenates the branches b_i: ``W [b_1, ..., b_n]`` is the sum of
        ``W_i b_i``, with slices W_i of the weights.
        """
        return pointwise_of_maps(self.bottleneck, self.pyramid.branches(x, attention))

    def decode(self, fine: Sequence[Tensor], high: Tensor) -> Tensor:
        """Fine levels and the result of the pyramid to the features of the logits.

        The features are (N, channels, H, W). The first convolution of both inputs is the sum of two
        convolutions; the released code concatenates its inputs.
        """
        first, second = self.decoder
        low = pointwise_of_levels(self.fine, fine, align_corners=True)
        weights = first.conv.weight.split([low.shape[1], high.shape[1]], dim=1)
        x = F.conv2d(resize(high, low.shape[2:], align_corners=True), weights[1], padding=1)
        x += F.conv2d(low, weights[0], padding=1)
        x = first.activate(first.norm(x))
        x = second.conv(x)  # as a line of its own, which frees the input before the norm
        return second.activate(second.norm(x))

    def loss_by_feat(self, seg_logits: Any, batch_data_samples: list) -> dict[str, Tensor]:
        """Losses of the output of ``forward`` in training, whose maps may have any size."""
        if self.shape is None:
            return super().loss_by_feat(seg_logits, batch_data_samples)
        logits, edge = seg_logits
        label = self._stack_batch_gt(batch_data_samples)
        size = label.shape[2:]
        logits = resize(at_least_float32(logits), size, self.align_corners)
        losses = super().loss_by_feat(logits, batch_data_samples)
        edge = resize(edge, size, align_corners=True)
        ignored = dict(ignore_index=self.ignore_index)
        if self.loss_edge is not None:
            options = dict(ignored, radius=self.edge_radius, skip_class0=self.skip_class0)
            target = class_edges(label[:, 0], self.num_classes, **options)
            losses[self.loss_edge.loss_name] = self.loss_edge(edge, target[:, None])
        if self.loss_att is not None:
            elsewhere = edge.detach().sigmoid() <= self.edge_threshold
            attended = label.masked_fill(elsewhere, self.ignore_index)[:, 0]
            losses[self.loss_att.loss_name] = self.loss_att(logits, attended, **ignored)
        if self.loss_dual is not None:
            losses[self.loss_dual.loss_name] = self.loss_dual(logits, label[:, 0], **ignored)
        return losses

    @torch.no_grad()
    def explain(
        self,
        levels: Sequence[Tensor],
        *,
        point: Point | None = None,
        label: Tensor | None = None,
        **side_inputs: Any,
    ) -> Maps:
        """Maps of the shape stream, if there is one, for ``levels`` as ``inputs`` of ``forward``.

        Returns:
            - ``canny``: edges of the image.
            - For each gate ``side_<i>``, the map of its deeper level, ``gate_<i>`` in (0, 1), and
              ``shape_<i>``, the features of the stream after it (N, C, H, W).
            - ``edge``: probability of an edge.
            - ``attention``: map of edges that the pyramid reads.
            - ``edge_classes``: class predicted on an edge, -1 elsewhere.
        """
        maps: Maps = {}
        logits, edge = self.run(levels, maps)
        if edge is None:
            return {}
        del maps['pyramid']
        logits = resize(logits, edge.shape[2:], self.align_corners)
        on_edge = maps['edge'] > self.edge_threshold
        classes = torch.where(on_edge, logits.argmax(1, keepdim=True), -1)
        return dict(canny=levels[-1] > 0) | maps | dict(edge_classes=classes)
