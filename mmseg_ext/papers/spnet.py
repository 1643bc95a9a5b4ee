"""SPNet: Strip Pooling: Rethinking Spatial Pooling for Scene Parsing.

Hou, Zhang, Cheng, Feng, CVPR 2020, arXiv 2003.13328.
Code: houqb/SPNet (MIT, "for non-commercial use"). Names there: SPBlock is our ``StripPooling``;
StripPooling is our ``MixedPooling``.

Differs from it. Predictions are the same unless ``gate_bias`` is set:

- strips are added by broadcasting, while the code first enlarges them to whole maps;
- the two reductions of a mixed pooling are one convolution, and a pool whose size divides the map
  is a plain average pool;
- the auxiliary head, the host's ``FCNHead``, runs once in training instead of twice, and never in
  inference;
- ``gate_bias`` sets the bias of the gates at the start of training. A large bias starts with open
  gates (near 1), which helps a backbone with frozen norms.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.models.backbones import ResNetV1c
from mmseg.models.backbones.resnet import Bottleneck
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..errors import UserError
from ..layers.head_defaults import released_defaults
from ..layers.norms import trains_on_one_value
from ..layers.pytorch_init import PyTorchInit
from ..segmentors.protocols import Maps, Point

Strips = tuple[Tensor, Tensor]  # vertical (N, C, H, 1), horizontal (N, C, 1, W)


class StripConvs(nn.Module):
    """Means of all rows and of all columns of a map, each through a separate convolution.

    Args:
        channels: Channels of the map (C).
        norm_cfg: Norm behind each convolution.
    """

    def __init__(self, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        conv = partial(ConvModule, channels, channels, norm_cfg=norm_cfg, act_cfg=None)
        self.vertical = conv((3, 1), padding=(1, 0))
        self.horizontal = conv((1, 3), padding=(0, 1))

    def forward(self, x: Tensor) -> Strips:
        """A map (N, C, H, W) to the means of its rows and of its columns, each after a convolution.

        The means of its rows are a vertical strip (N, C, H, 1), the means of its columns a
        horizontal strip (N, C, 1, W).

        Raises:
            UserError: A batch norm would train on a single value.
        """
        n, _, h, w = x.shape
        if trains_on_one_value(self.vertical.norm, n * min(h, w)):
            raise UserError(
                f'one map of {h}x{w} has a strip of one value, on which batch norm cannot train: '
                'use larger crops or more images in a batch'
            )
        return self.vertical(x.mean(3, keepdim=True)), self.horizontal(x.mean(2, keepdim=True))


def cross(strips: Strips) -> Tensor:
    """ReLU of the sum of both strips at each pixel, (N, C, H, W)."""
    vertical, horizontal = strips
    return F.relu(vertical + horizontal, inplace=True)


@MODELS.register_module()
class StripPooling(BaseModule):
    """Multiplies a map by gates in (0, 1) that see the whole row and column of a pixel (Fig. 2).

    The paper calls it SPM. It is also a plugin for the host's ResNets of 50 or more layers, which
    have bottlenecks. It is then in every block of a stage. For example, in the last stage::

        norm_cfg = dict(type='SyncBN')
        cfg = dict(type='StripPooling', norm_cfg=norm_cfg)
        plugins = [dict(cfg=cfg, stages=(False, False, False, True), position='after_conv2')]
        backbone = dict(type='ResNetV1c', depth=50, norm_cfg=norm_cfg, plugins=plugins)

    Args:
        in_channels: Channels of the map and of its gates (C).
        norm_cfg: Norm of the strips; None for ``BN``.
        gate_bias: Bias of all gates at the start of training. With 4 the gates start near 1, so
            they hardly change a pretrained map. With None they start near 0.5, as released.
    """

    _abbr_ = 'spm'

    def __init__(
        self, in_channels: int, *, norm_cfg: dict | None = None, gate_bias: float | None = None
    ) -> None:
        super().__init__()
        self.gate_bias = gate_bias
        self.strips = StripConvs(in_channels, norm_cfg or dict(type='BN'))
        self.conv_gate = nn.Conv2d(in_channels, in_channels, 1)
        self.init_weights()  # a backbone whose weights are loaded does not call it

    def init_weights(self) -> None:
        """Kaiming's initial weights, as in a ResNet, and PyTorch's default for the bias."""
        self.strips.vertical.init_weights()
        self.strips.horizontal.init_weights()
        self.conv_gate.reset_parameters()
        nn.init.kaiming_normal_(self.conv_gate.weight, mode='fan_out', nonlinearity='relu')
        if self.gate_bias is not None:
            nn.init.constant_(self.conv_gate.get_parameter('bias'), self.gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        """A map (N, C, H, W) to the gated map of the same shape."""
        return x * self.gate(self.strips(x))

    def gate(self, strips: Strips) -> Tensor:
        """Both strips to the gates (N, C, H, W), in (0, 1)."""
        return self.conv_gate(cross(strips)).sigmoid()


@MODELS.register_module()
class SPNetResNet(ResNetV1c):
    """Dilated ResNet with strip pooling in the last block of each stage and in all of stage 4.

    The gates follow the ReLU of a bottleneck's 3x3 convolution. By default the network is the
    released one: a stem of 64, 64 and 128 channels, output stride 8, dilations of 4, 8 and 16 in
    stage 4.

    Args:
        depth: Number of layers: 50, 101 or 152; without strip pooling also 18 and 34.
        strip_pooling: Whether the blocks have gates.
        gate_bias: Argument of ``StripPooling``.
        **kwargs: Arguments of the host's ``ResNetV1c``.

    Raises:
        UserError: A ResNet of this ``depth`` has no bottlenecks.
    """

    host_counterpart = dict(type='ResNetV1c')

    def __init__(
        self,
        depth: int,
        *,
        strip_pooling: bool = True,
        gate_bias: float | None = None,
        **kwargs: Any,
    ) -> None:
        released = dict(
            stem_channels=128,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            contract_dilation=True,
            multi_grid=(4, 8, 16),
            zero_init_residual=False,
        )
        super().__init__(depth=depth, **(released | kwargs))
        self.strip_pooling = strip_pooling
        if not strip_pooling:
            return
        if self.block is not Bottleneck:
            raise UserError(
                f'SPNetResNet(depth={depth}) has no bottlenecks to put strip pooling into: choose '
                'a depth of 50, 101 or 152, or strip_pooling=False'
            )
        gate = dict(type=StripPooling, norm_cfg=self.norm_cfg, gate_bias=gate_bias)
        for block in dict(self.gated_blocks()).values():
            block.with_plugins = True
            block.after_conv1_plugin_names = block.after_conv3_plugin_names = []
            block.after_conv2_plugin_names = block.make_block_plugins(block.planes, [gate])
        self._freeze_stages()
        self._register_load_state_dict_pre_hook(self._keep_gates)

    def _keep_gates(self, state_dict: dict, prefix: str, *_: Any) -> None:
        """Keeps the gates where the file of a backbone, such as ImageNet weights, has none.

        A file of a whole model has to hold them.
        """
        if not prefix and not any('.spm.' in name for name in state_dict):
            state_dict |= {name: t for name, t in self.state_dict().items() if '.spm.' in name}

    def gated_blocks(self) -> Iterator[tuple[str, Bottleneck]]:
        """Name and module of each block that strip pooling belongs to."""
        for name in self.res_layers:
            stage = getattr(self, name)
            first = 0 if name == 'layer4' else len(stage) - 1
            for i in range(first, len(stage)):
                yield f'{name}.{i}', stage[i]

    def train(self, mode: bool = True) -> 'SPNetResNet':
        """Sets the mode and returns the module; the host's method returns None."""
        super().train(mode)
        return self

    @torch.no_grad()
    def explain(self, inputs: Tensor) -> tuple[tuple[Tensor, ...], Maps]:
        """Levels of images (N, 3, H, W), and the gates and strips of each block.

        Returns:
            The levels, and means over channels. For the block ``layer4.0`` these are
            ``layer4.0_gate`` (N, 1, h, w) in (0, 1), and the strips that it is made from,
            ``layer4.0_vertical`` (N, 1, h, 1) and ``layer4.0_horizontal`` (N, 1, 1, w).
        """
        maps: Maps = {}

        def record(block_name: str, gate: StripPooling, args: tuple[Tensor]) -> None:
            vertical, horizontal = strips = gate.strips(args[0])
            tensors = dict(gate=gate.gate(strips), vertical=vertical, horizontal=horizontal)
            for name, x in tensors.items():
                maps[f'{block_name}_{name}'] = x.float().mean(1, keepdim=True)

        blocks = self.gated_blocks() if self.strip_pooling else ()
        handles = [
            block.spm.register_forward_pre_hook(partial(record, name)) for name, block in blocks
        ]
        try:
            return self(inputs), maps
        finally:
            for handle in handles:
                handle.remove()


def average_pool(x: Tensor, size: int) -> Tensor:
    """Means over a grid of ``size`` x ``size`` cells, (N, C, H, W) to (N, C, size, size).

    Where the map has fewer pixels than cells, several cells have the same value.
    """
    h, w = x.shape[2:]
    if h % size == 0 and w % size == 0:
        return F.avg_pool2d(x, (h // size, w // size))  # can be exported, faster backward pass
    return F.adaptive_avg_pool2d(x, size)


class MixedPooling(nn.Module):
    """Adds context of small pools and of strips to a map (MPM, Fig. 3 and 4).

    Args:
        channels: Channels of input and output (C). Each path has C // 4.
        pool_sizes: Cells along a side of each pool of the short-range path.
        norm_cfg: Norm after every convolution; None for ``BN``.
        align_corners: Whether resizing of the pools aligns the corners (True as released).
    """

    def __init__(
        self,
        channels: int,
        *,
        pool_sizes: Sequence[int] = (20, 12),
        norm_cfg: dict | None = None,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        width = channels // 4
        norm_cfg = norm_cfg or dict(type='BN')
        conv = partial(ConvModule, norm_cfg=norm_cfg)
        conv3x3 = partial(conv, width, width, 3, padding=1)
        self.pool_sizes = tuple(pool_sizes)
        self.align_corners = align_corners
        self.reduce_short = conv(channels, width, 1)
        self.local = conv3x3(act_cfg=None)
        self.pyramid = nn.ModuleList(conv3x3(act_cfg=None) for _ in self.pool_sizes)
        self.out_short = conv3x3()
        self.reduce_long = conv(channels, width, 1)
        self.strips = StripConvs(width, norm_cfg)
        self.out_long = conv3x3()
        self.fuse = conv(2 * width, channels, 1, act_cfg=None)

    def forward(self, x: Tensor) -> Tensor:
        """A map (N, C, H, W) of any height and width to a map of the same shape."""
        return self.merge(x, self.paths(x))

    def paths(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Short-range and long-range path of a map (N, C, H, W), each (N, C // 4, H, W)."""
        short, long = self._reduce(x)
        around = self.local(short)
        for size, conv in zip(self.pool_sizes, self.pyramid, strict=True):
            around += F.interpolate(
                conv(average_pool(short, size)),
                x.shape[2:],
                mode='bilinear',
                align_corners=self.align_corners,
            )
        return self.out_short(F.relu(around, inplace=True)), self.out_long(cross(self.strips(long)))

    def _reduce(self, x: Tensor) -> list[Tensor]:
        """Inputs of both paths, by one convolution that reads ``x`` once."""
        layers = self.reduce_short, self.reduce_long
        maps = F.conv2d(x, torch.cat([layer.conv.weight for layer in layers])).chunk(2, dim=1)
        return [layer.activate(layer.norm(y)) for layer, y in zip(layers, maps, strict=True)]

    def merge(self, x: Tensor, paths: tuple[Tensor, Tensor]) -> Tensor:
        """ReLU of the sum of ``x`` and the fused paths."""
        return F.relu(self.fuse(torch.cat(paths, dim=1)).add_(x), inplace=True)


@MODELS.register_module()
class SPNetHead(PyTorchInit, BaseDecodeHead):
    """Classifies pixels after mixed pooling: C channels become C / 2, C / 4, and K.

    Args:
        in_channels: Channels of the map (C); several numbers with
            ``input_transform='resize_concat'``.
        channels: Width of the classifier's input; None for a quarter of C, as released.
        pool_channels: Width of the mixed pooling; None for half of C, as released.
        pool_sizes: Cells along a side of each pool.
        num_mpm: Number of mixed poolings in a row (2 in the paper, Table 2).
        dropout_ratio: Probability with which a whole channel is dropped before the classifier.
        align_corners: Whether resizing aligns the corners; True by default, as released.
        **kwargs: Arguments of the host's ``BaseDecodeHead``.

    Raises:
        UserError: Several levels without ``resize_concat``, or too few channels.
    """

    explains_pixels = False
    host_counterpart = dict(type='PSPHead')

    def __init__(
        self,
        in_channels: int | Sequence[int] = 2048,
        channels: int | None = None,
        *,
        pool_channels: int | None = None,
        pool_sizes: Sequence[int] = (20, 12),
        num_mpm: int = 2,
        dropout_ratio: float = 0.1,
        **kwargs: Any,
    ) -> None:
        single = isinstance(in_channels, int)
        if not single and kwargs.get('input_transform') != 'resize_concat':
            raise UserError(
                f'SPNetHead reads one map, got in_channels={in_channels}: give one level, or '
                "set input_transform='resize_concat'"
            )
        width = in_channels if isinstance(in_channels, int) else sum(in_channels)
        pool_channels = pool_channels or width // 2
        channels = channels or pool_channels // 2
        if pool_channels < 4:
            raise UserError(
                f'SPNetHead has {pool_channels} channels for its mixed pooling, got in_channels='
                f'{in_channels}: it needs 4 or more, set pool_channels'
            )
        super().__init__(
            in_channels,
            channels,
            dropout_ratio=dropout_ratio,
            **released_defaults(kwargs, align_corners=True),
        )
        self.reduce = ConvModule(width, pool_channels, 1, norm_cfg=self.norm_cfg)
        self.mixed_pooling = nn.Sequential(
            *(
                MixedPooling(
                    pool_channels,
                    pool_sizes=pool_sizes,
                    norm_cfg=self.norm_cfg,
                    align_corners=self.align_corners,
                )
                for _ in range(num_mpm)
            )
        )
        self.bottleneck = ConvModule(pool_channels, channels, 3, padding=1, norm_cfg=self.norm_cfg)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Levels (N, C_i, H_i, W_i) to logits (N, K, H, W) at the size of the level read."""
        x = self.reduce(self._transform_inputs(inputs))
        return self.cls_seg(self.bottleneck(self.mixed_pooling(x)))

    @torch.no_grad()
    def explain(
        self,
        levels: Sequence[Tensor],
        *,
        point: Point | None = None,
        label: Tensor | None = None,
        **side_inputs: Any,
    ) -> Maps:
        """Strength of the two paths of each mixed pooling, for levels (N, C_i, H_i, W_i).

        Returns:
            ``mpm1_short``, ``mpm1_long``, ``mpm2_short``, ...: (N, 1, H, W) in [0, 1], means over
            channels, divided by the largest value of both maps of an image.
        """
        x = self.reduce(self._transform_inputs(levels))
        maps: Maps = {}
        pooling: MixedPooling
        for i, pooling in enumerate(self.mixed_pooling, start=1):  # type: ignore[assignment]
            paths = pooling.paths(x)
            means = torch.cat([path.float().mean(1, keepdim=True) for path in paths], dim=1)
            means = means / means.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
            maps[f'mpm{i}_short'], maps[f'mpm{i}_long'] = means.split(1, dim=1)
            x = pooling.merge(x, paths)
        return maps
