"""Released names of pixel contrast (tfzhou/ContrastiveSeg) with HRNet, OCRNet and DeepLabV3."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import UserError
from .hmsa import OBJECT_ATTENTION
from .renaming import rename

# Biases of released convolutions that have none here, and the norm that absorbs each.
BIASED = (
    (r'cls_head\.0\.bias', 'cls_head.1.0'),
    (r'decoder\.layer_dsn\.0\.bias', 'decoder.layer_dsn.1.0'),
    (r'(.*object_context_block\.f_(?:pixel|object|down|up))\.0\.bias', r'\1.1.0'),
    (r'(.*object_context_block\.f_(?:pixel|object))\.2\.bias', r'\1.3.0'),
    (r'(ocr_distri_head\.conv_bn_dropout)\.0\.bias', r'\1.1.0'),
)
# Queues of the memory model: their layout differs here, so training starts with empty queues.
QUEUES = (r'(segment|pixel)_queue(_ptr)?$',)
CLASSIFIER = (r'fc\.',)  # only in weights for ImageNet
BACKBONE = (
    *(
        (rf'(?:(?:backbone\.)?resinit\.)?{kind}{i}\.', f'backbone.stem.{3 * (i - 1) + at}.')
        for i in (1, 2, 3)
        for at, kind in enumerate(('conv', 'bn'))
    ),
    (r'backbone\.', 'backbone.'),
    (r'(?:resinit\.)?(layer\d\.)', r'backbone.\1'),
)
PROJECTION = (
    (r'proj_head\.proj\.0\.', 'decode_head.projection.conv.'),
    (r'proj_head\.proj\.1\.0\.', 'decode_head.projection.norm.'),
    (r'proj_head\.proj\.2\.', 'decode_head.projection.last.'),
)
HRNET = (
    (r'cls_head\.0\.', 'convs.0.conv.'),
    (r'cls_head\.1\.0\.', 'convs.0.bn.'),
    (r'cls_head\.3\.', 'conv_seg.'),
)
OCR = (
    (r'conv3x3\.0\.', 'bottleneck.conv.'),
    (r'conv3x3\.1\.0\.', 'bottleneck.bn.'),
    (r'aux_head\.0\.', 'aux_conv.conv.'),
    (r'aux_head\.1\.0\.', 'aux_conv.bn.'),
    (r'aux_head\.2\.', 'aux_seg.'),
    (r'cls_head\.', 'conv_seg.'),
    (r'ocr_distri_head\.conv_bn_dropout\.0\.', 'object_context_block.bottleneck.conv.'),
    (r'ocr_distri_head\.conv_bn_dropout\.1\.0\.', 'object_context_block.bottleneck.bn.'),
    *(
        (rf'ocr_distri_head\.object_context_block\.{old}', f'object_context_block.{new}')
        for old, new in OBJECT_ATTENTION
    ),
)
DEEPLAB = (
    *(
        (rf'decoder\.layer_aspp\.b{i}\.{old}\.', f'aspp_modules.{i}.{new}.')
        for i in range(4)
        for old, new in (('0', 'conv'), (r'1\.0', 'bn'))
    ),
    (r'decoder\.layer_aspp\.b4\.1\.', 'image_pool.1.conv.'),
    (r'decoder\.layer_aspp\.b4\.2\.0\.', 'image_pool.1.bn.'),
    (r'decoder\.layer_aspp\.project\.0\.', 'bottleneck.conv.'),
    (r'decoder\.layer_aspp\.project\.1\.0\.', 'bottleneck.bn.'),
    (r'decoder\.refine\.0\.', 'refine.conv.'),
    (r'decoder\.refine\.1\.(0\.)?', 'refine.bn.'),
    (r'decoder\.refine\.2\.', 'conv_seg.'),
)
AUXILIARY = (
    (r'decoder\.layer_dsn\.0\.', 'auxiliary_head.convs.0.conv.'),
    (r'decoder\.layer_dsn\.1\.0\.', 'auxiliary_head.convs.0.bn.'),
    (r'decoder\.layer_dsn\.2\.', 'auxiliary_head.conv_seg.'),
)


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``EncoderDecoder`` with a ``PixelContrastHead`` or, without projection, its head.

    A ``PixelContrastHead`` loads both. Queues of the memory model are omitted. A ResNet-101 for
    ImageNet with three convolutions in its stem becomes ``backbone``.
    """
    weights = {name.removeprefix('encoder_q.'): tensor for name, tensor in state_dict.items()}
    weights = {
        name: tensor
        for name, tensor in weights.items()
        if not any(re.match(pattern, name) for pattern in (*QUEUES, *CLASSIFIER))
    }
    _fold_biases(weights)
    project = 'decoder.layer_aspp.project.0.weight'
    if project in weights:  # the pooled image is last as released, and first in the host
        branches = weights[project].chunk(5, dim=1)
        weights[project] = torch.cat([branches[-1], *branches[:-1]], dim=1)
    if 'proj_head.proj.2.weight' in weights:
        weights['proj_head.proj.2.weight'] = weights['proj_head.proj.2.weight'].flatten(1)
    if 'cls_head.3.weight' in weights:  # the released classifier has no bias
        weights['cls_head.3.bias'] = weights['cls_head.3.weight'].new_zeros(
            len(weights['cls_head.3.weight'])
        )
    has_projection = any(name.startswith('proj_head.') for name in weights)
    head = 'decode_head.head.' if has_projection else 'decode_head.'
    # The last layer of OCRNet has the name of HRNet's first layers.
    is_ocr = any(name.startswith('ocr_distri_head.') for name in weights)
    inner = ((old, head + new) for old, new in (OCR if is_ocr else HRNET + DEEPLAB))
    return rename(weights, (*BACKBONE, *PROJECTION, *AUXILIARY, *inner))


def _fold_biases(weights: dict[str, Tensor]) -> None:
    """Removes biases before a norm and subtracts them from the norm's running mean.

    This is exact in eval mode; in training the norm cancels a bias.

    Raises:
        UserError: The norm of a bias is missing.
    """
    for name in list(weights):
        for bias, norm in BIASED:
            if re.fullmatch(bias, name):
                mean = re.sub(bias, norm, name) + '.running_mean'
                if mean not in weights:
                    raise UserError(
                        f'{name} exists but {mean} is missing: give the whole checkpoint'
                    )
                weights[mean] = weights[mean] - weights.pop(name)
