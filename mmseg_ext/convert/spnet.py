"""Released names of SPNet (houqb/SPNet) and of its backbones for ImageNet.

The released files are for non-commercial use, and so are weights converted from them.
"""

from collections.abc import Mapping

from torch import Tensor

from .renaming import rename

BACKBONE = (
    (r'conv1\.', 'stem.'),
    (r'bn1\.', 'stem.7.'),
    (r'(layer\d\.\d+\.spm\.)conv1\.', r'\1strips.vertical.conv.'),
    (r'(layer\d\.\d+\.spm\.)bn1\.', r'\1strips.vertical.bn.'),
    (r'(layer\d\.\d+\.spm\.)conv2\.', r'\1strips.horizontal.conv.'),
    (r'(layer\d\.\d+\.spm\.)bn2\.', r'\1strips.horizontal.bn.'),
    (r'(layer\d\.\d+\.spm\.)conv3\.', r'\1conv_gate.'),
    (r'(layer\d\.\d+\.(?:conv|bn|downsample))', r'\1'),
)
MIXED_POOLING = (
    ('conv1_1', 'reduce_short'),
    ('conv1_2', 'reduce_long'),
    ('conv2_0', 'local'),
    ('conv2_1', 'pyramid.0'),
    ('conv2_2', 'pyramid.1'),
    ('conv2_3', 'strips.horizontal'),
    ('conv2_4', 'strips.vertical'),
    ('conv2_5', 'out_short'),
    ('conv2_6', 'out_long'),
    ('conv3', 'fuse'),
)
CONV_AND_NORM = (
    (r'head\.trans_layer', 'decode_head.reduce'),
    *(
        (rf'head\.strip_pool{i + 1}\.{old}', f'decode_head.mixed_pooling.{i}.{new}')
        for i in range(2)
        for old, new in MIXED_POOLING
    ),
    (r'head\.score_layer', 'decode_head.bottleneck'),
    (r'auxlayer\.conv5', 'auxiliary_head.convs.0'),
)


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the model, or of ``SPNetResNet`` alone from a file for ImageNet.

    The classifier for ImageNet is omitted. Such a file has no gates; they keep their
    initialisation.
    """
    return rename(
        {name: t for name, t in state_dict.items() if not name.startswith('fc.')},
        (
            *((rf'pretrained\.{old}', f'backbone.{new}') for old, new in BACKBONE),
            *BACKBONE,
            *((rf'{old}\.0\.', f'{new}.conv.') for old, new in CONV_AND_NORM),
            *((rf'{old}\.1\.', f'{new}.bn.') for old, new in CONV_AND_NORM),
            (r'head\.score_layer\.4\.', 'decode_head.conv_seg.'),
            (r'auxlayer\.conv5\.4\.', 'auxiliary_head.conv_seg.'),
        ),
    )
