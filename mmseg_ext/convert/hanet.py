"""Released names of HANet (shachoi/HANet) to ours."""

import re
from collections.abc import Mapping

from torch import Tensor

from .renaming import rename

# A deep stem has more layers. The weights for ImageNet have other names again (conv1, bn1, ...).
STEM = ((r'layer0\.0\.', 'backbone.conv1.'), (r'layer0\.1\.', 'backbone.bn1.'))
DEEP_STEM = (
    (r'layer0\.(\d)\.', r'backbone.stem.\1.'),
    (r'conv1\.', 'backbone.stem.0.'),
    (r'bn1\.', 'backbone.stem.1.'),
    (r'conv2\.', 'backbone.stem.3.'),
    (r'bn2\.', 'backbone.stem.4.'),
    (r'conv3\.', 'backbone.stem.6.'),
    (r'bn3\.', 'backbone.stem.7.'),
)
RESNET = ((r'layer(\d)\.(\d+)\.((?:conv|bn)\d|downsample)\.', r'backbone.layer\1.\2.\3.'),)
CLASSIFIER = re.compile(r'fc\.')  # only in weights for ImageNet


def _mobilenet() -> list[tuple[str, str]]:
    """MobileNetV2: released as a row of eighteen features, here in stages of equal width."""
    patterns = [
        (r'layer0\.0\.0\.', 'backbone.conv1.conv.'),
        (r'layer0\.0\.1\.', 'backbone.conv1.bn.'),
        (r'layer4\.0\.0\.', 'backbone.conv2.conv.'),
        (r'layer4\.0\.1\.', 'backbone.conv2.bn.'),
    ]
    ours = [(stage, i) for stage, n in enumerate((1, 2, 3, 4, 3, 3, 1), 1) for i in range(n)]
    released = [(0, 1), *((layer, i) for layer, n in ((1, 5), (2, 4), (3, 7)) for i in range(n))]
    for (layer, number), (stage, block) in zip(released, ours, strict=True):
        old, new = rf'layer{layer}\.{number}\.conv', f'backbone.layer{stage}.{block}.conv'
        last = 1 if stage == 1 else 2  # the pointwise convolution that ends a block
        patterns += [
            (rf'{old}\.(\d)\.0\.', rf'{new}.\1.conv.'),
            (rf'{old}\.(\d)\.1\.', rf'{new}.\1.bn.'),
            (rf'{old}\.{last}\.', f'{new}.{last}.conv.'),
            (rf'{old}\.{last + 1}\.', f'{new}.{last}.bn.'),
        ]
    return patterns


def _conv_bn(old: str, new: str, first: int = 0) -> list[tuple[str, str]]:
    """Convolution and norm, numbers ``first`` and the next of a sequence, to a ``ConvModule``."""
    return [(rf'{old}\.{first}\.', f'{new}.conv.'), (rf'{old}\.{first + 1}\.', f'{new}.bn.')]


HEAD = [
    *_conv_bn(r'aspp\.features\.(\d)', r'decode_head.aspp.\1'),
    *_conv_bn(r'aspp\.img_conv', 'decode_head.image_pool'),
    *_conv_bn('bot_aspp', 'decode_head.bottleneck'),
    *_conv_bn('bot_fine', 'decode_head.low'),
    *_conv_bn('final1', 'decode_head.decoder.0'),
    *_conv_bn('final1', 'decode_head.decoder.1', first=3),
    (r'final2\.0\.', 'decode_head.conv_seg.'),
    *_conv_bn('dsn', 'auxiliary_head.convs.0'),
    (r'dsn\.4\.', 'auxiliary_head.conv_seg.'),
]
OLD, NEW = r'hanet(\d)', r'decode_head.height_attention.\1'
GATES = [
    *_conv_bn(rf'{OLD}\.attention_first', f'{NEW}.squeeze'),
    (rf'{OLD}\.attention_third\.0\.', f'{NEW}.conv_gate.'),
    (rf'{OLD}\.pos_emb1d_(?:1st|2nd)\.pos_layer\.weight', f'{NEW}.position'),
]
SECOND = rf'{OLD}\.attention_second'


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of backbone, ``HANetHead`` and ``HANetAuxHead``, with any set of gates.

    The released ResNet-101 for ImageNet becomes ``backbone``.
    """
    weights = {name: x for name, x in state_dict.items() if not CLASSIFIER.match(name)}
    if 'dsn.0.bias' in weights:  # folded into the mean of the norm after it
        weights['dsn.1.running_mean'] = weights['dsn.1.running_mean'] - weights.pop('dsn.0.bias')
    deep = 'layer0.3.weight' in weights or 'conv2.weight' in weights
    # The gate is the last convolution, the second of two or the third of three.
    of_three = [*_conv_bn(SECOND, f'{NEW}.expand')]
    of_two = [(rf'{SECOND}\.0\.', f'{NEW}.conv_gate.')]
    second = of_three if any('attention_third' in name for name in weights) else of_two
    stem = DEEP_STEM if deep else STEM
    renamed = rename(weights, [*_mobilenet(), *stem, *RESNET, *HEAD, *GATES, *second])
    # Released 1-D convolutions (kernel k) are 2-D convolutions (kernel k x 1) here.
    return {name: x[..., None] if x.ndim == 3 else x for name, x in renamed.items()}
