"""Released names of MagNet (VinAIResearch/MagNet) and of its two segmentors to ours."""

import re
from collections.abc import Mapping

from torch import Tensor

from ..errors import UserError
from .hmsa import OBJECT_ATTENTION
from .renaming import rename

SEVERAL_FILES = True  # the segmentor's and those of the refiners
REFINER = (
    (r'bn0\.', 'bn0.'),
    (r'conv(\d)\.', r'conv\1.conv.'),
    (r'bn(\d)\.', r'conv\1.bn.'),
    (r'residual\.', 'residual.'),
    (r'seg_conv\.', 'conv_seg.'),
)
OCR = (
    (r'conv3x3_ocr\.0\.', 'decode_head.bottleneck.conv.'),
    (r'conv3x3_ocr\.1\.', 'decode_head.bottleneck.bn.'),
    (r'aux_head\.0\.', 'decode_head.aux_conv.conv.'),
    (r'aux_head\.1\.', 'decode_head.aux_conv.bn.'),
    (r'aux_head\.3\.', 'decode_head.aux_seg.'),
    (r'cls_head\.', 'decode_head.conv_seg.'),
    *(
        (rf'ocr_distri_head\.{old}', f'decode_head.object_context_block.{new}')
        for old, new in (
            (r'conv_bn_dropout\.0\.', 'bottleneck.conv.'),
            (r'conv_bn_dropout\.1\.0\.', 'bottleneck.bn.'),
            *((rf'object_context_block\.{old}', new) for old, new in OBJECT_ATTENTION),
        )
    ),
    (r'(?=(conv[12]|bn[12]|layer1|transition\d|stage\d)\.)', 'backbone.'),
)
FPN = (
    (r'resnet_backbone\.', 'backbone.'),
    (r'toplayer\.', 'neck.lateral_convs.3.conv.'),
    *((rf'latlayer{i}\.', f'neck.lateral_convs.{3 - i}.conv.') for i in (1, 2, 3)),
    *((rf'smooth{i}_1\.', f'neck.fpn_convs.{4 - i}.conv.') for i in (1, 2, 3, 4)),
    *((rf'smooth{i}_2\.', f'decode_head.convs.{4 - i}.') for i in (1, 2, 3, 4)),
    (r'classify\.', 'decode_head.conv_seg.'),
)
NETWORK = re.compile(r'(seg|refine\d+)\.')


def convert(*files: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a segmentor alone, or of ``MagNet``.

    Args:
        *files: Released segmentor, or refiners from the coarsest scale to the finest, or the
            segmentor followed by the refiners. A single mapping may also hold all of them, with
            the prefixes ``seg.``, ``refine0.``, ``refine1.`` and so on.

    Raises:
        UserError: A name belongs to neither, or there are two segmentors.
    """
    if len(files) == 1 and all(NETWORK.match(name) for name in files[0]):
        return _convert_networks(files[0])
    files = tuple({n.removeprefix('model.'): t for n, t in file.items()} for file in files)
    if len(files) == 1 and not _is_refiner(files[0]):
        return _convert_segmentor(files[0])
    first = 0 if _is_refiner(files[0]) else 1
    prefixes = ['seg.'] * first + [f'refine{i}.' for i in range(len(files) - first)]
    if segmentors := [i for i in range(first, len(files)) if not _is_refiner(files[i])]:
        raise UserError(
            f'file {segmentors[0] + 1} of {len(files)} is no refiner, because it has no seg_conv: '
            'give the segmentor first, then the refiners from the coarsest scale to the finest'
        )
    return _convert_networks(
        {p + n: t for p, file in zip(prefixes, files, strict=True) for n, t in file.items()}
    )


def _convert_networks(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    networks: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        network, _, inner_name = name.partition('.')
        networks.setdefault(network, {})[inner_name] = tensor
    converted: dict[str, Tensor] = {}
    for network, state in networks.items():
        is_segmentor = network == 'seg'
        prefix = 'segmentor.' if is_segmentor else f'refiners.{network.removeprefix("refine")}.'
        renamed = _convert_segmentor(state) if is_segmentor else rename(state, REFINER)
        converted |= {prefix + name: tensor for name, tensor in renamed.items()}
    return converted


def _convert_segmentor(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    is_fpn = any(name.startswith('resnet_backbone.') for name in weights)
    return rename(weights, FPN if is_fpn else OCR)


def _is_refiner(weights: Mapping[str, Tensor]) -> bool:
    return 'seg_conv.weight' in weights
