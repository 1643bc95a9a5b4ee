"""Released names of FastFCN (wuhuikai/FastFCN) to those of this package."""

import re
from collections.abc import Mapping

from torch import Tensor

from .renaming import rename

Pattern = tuple[str, str]


def _conv_bn(old: str, new: str, first: int = 0) -> list[Pattern]:
    """Patterns from convolution ``first`` and the next norm of a sequence to a ``ConvModule``."""
    return [
        (rf'{old}\.{first}\.', f'{new}.conv.'),
        (rf'{old}\.{first + 1}\.', f'{new}.bn.'),
    ]


def _separable(old: str, new: str, norm: str) -> list[Pattern]:
    """Patterns from a separable convolution with its norms to the host's module."""
    return [
        (rf'{old}\.0\.conv1\.', f'{new}.depthwise_conv.conv.'),
        (rf'{old}\.0\.bn\.', f'{new}.depthwise_conv.{norm}.'),
        (rf'{old}\.0\.pointwise\.', f'{new}.pointwise_conv.conv.'),
        (rf'{old}\.1\.', f'{new}.pointwise_conv.{norm}.'),
    ]


BACKBONE = [
    (r'(?:pretrained\.)?conv1\.', 'backbone.stem.'),
    (r'(?:pretrained\.)?bn1\.', 'backbone.stem.7.'),
    (r'(?:pretrained\.)?layer(\d)\.', r'backbone.layer\1.'),
]
CLASSIFIER = re.compile(r'(?:pretrained\.)?fc\.')  # of ImageNet

NECK: list[Pattern] = []
for i in range(3):
    NECK += _conv_bn(rf'jpu\.conv{3 + i}', f'neck.conv_layers.{i}.0')
for i in range(4):
    NECK += _separable(rf'jpu\.dilation{1 + i}', f'neck.dilation_layers.{i}.0', 'bn')
for step in (1, 2):
    NECK += _conv_bn(rf'jpu\.jum_{step}\.conv_l', f'neck.step_{step}.conv_low')
    NECK += _conv_bn(rf'jpu\.jum_{step}\.conv_h', f'neck.step_{step}.conv_high')
    for i in range(3):
        released = rf'jpu\.jum_{step}\.dilation{1 + i}'
        NECK += _separable(released, f'neck.step_{step}.branches.{i}', 'gn')

ENC = [
    *_conv_bn(r'head\.conv5', 'decode_head.bottleneck'),
    (r'head\.conv6\.1\.', 'decode_head.conv_seg.'),
    (r'head\.encmodule\.selayer\.', 'decode_head.se_layer.'),
    (r'head\.encmodule\.fc\.', 'decode_head.enc_module.fc.'),
    (r'head\.encmodule\.encoding\.3\.', 'decode_head.enc_module.encoding.0.'),
    (r'head\.encmodule\.encoding\.4\.', 'decode_head.enc_module.encoding.1.'),
    *_conv_bn(r'head\.encmodule\.encoding', 'decode_head.enc_module.encoding_project'),
]
PSP = [
    *_conv_bn(r'head\.conv5', 'decode_head.bottleneck', first=1),
    (r'head\.conv5\.5\.', 'decode_head.conv_seg.'),
]
for i in range(4):
    PSP += _conv_bn(rf'head\.conv5\.0\.conv{1 + i}', f'decode_head.psp_modules.{i}.1')
FCN = [
    *_conv_bn(r'head\.conv5', 'decode_head.convs.0'),
    (r'head\.conv5\.4\.', 'decode_head.conv_seg.'),
]
ASPP = [
    *_conv_bn(r'head\.aspp\.b4\.gap', 'decode_head.image_pool.1', first=1),
    *_conv_bn(r'head\.aspp\.project', 'decode_head.bottleneck.0'),
    *_conv_bn(r'head\.block', 'decode_head.bottleneck.2'),
    (r'head\.block\.4\.', 'decode_head.conv_seg.'),
]
for i in range(4):
    ASPP += _conv_bn(rf'head\.aspp\.b{i}', f'decode_head.aspp_modules.{i}')
# Names that identify a head; layers of different heads have the same numbers.
HEADS = {'head.conv5.0.conv1.': PSP, 'head.conv5.4.': FCN, 'head.aspp.': ASPP}
AUXILIARY = [
    *_conv_bn(r'auxlayer\.conv5', 'auxiliary_head.convs.0'),
    (r'auxlayer\.conv5\.4\.', 'auxiliary_head.conv_seg.'),
]


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the backbone, the neck and the heads, or of the backbone for ImageNet alone.

    The neck is ``FastFCNJPU`` (or the host's ``JPU``) or ``JPUX``. Names of the released backbone
    for ImageNet have no prefix ``pretrained.``.
    """
    state_dict = {name: x for name, x in state_dict.items() if not CLASSIFIER.match(name)}
    head = next((HEADS[k] for k in HEADS if any(n.startswith(k) for n in state_dict)), ENC)
    renamed = rename(state_dict, [*BACKBONE, *NECK, *head, *AUXILIARY])
    return {name: _reorder(name, x) for name, x in renamed.items()}


def _reorder(name: str, x: Tensor) -> Tensor:
    """Channels in the order of the host's modules where it differs from the released order."""
    if re.match(r'neck\.dilation_layers\.\d\.0\.pointwise_conv\.conv\.', name):
        return _reverse_thirds(x, 1)
    if re.match(r'neck\.dilation_layers\.\d\.0\.depthwise_conv\.', name) and x.ndim:
        return _reverse_thirds(x, 0)
    if name == 'decode_head.bottleneck.0.conv.weight':
        return x.roll(
            x.shape[1] // 5, 1
        )  # the pooled image is last as released, and first in the host
    return x


def _reverse_thirds(x: Tensor, dim: int) -> Tensor:
    """Reverses three levels: coarsest first as released, finest first in the host."""
    return x.unflatten(dim, (3, -1)).flip(dim).flatten(dim, dim + 1)
