"""Released names of Gated-SCNN (nv-tlabs/GSCNN) to those of this package."""

import re
from collections.abc import Mapping

from torch import Tensor

from .renaming import rename

BACKBONE = (
    (r'mod1\.conv1\.', 'backbone.conv1.'),
    *(
        (rf'mod(\d)\.block{block + 1}\.{old}', rf'backbone.mod\1.{block}.{new}')
        for block in range(6)
        for old, new in (
            (r'bn1\.(0\.)?', 'norms.0.'),
            (r'convs\.conv1\.', 'convs.0.'),
            (r'convs\.bn2\.(0\.)?', 'norms.1.'),
            (r'convs\.conv2\.', 'convs.1.'),
            (r'convs\.bn3\.(0\.)?', 'norms.2.'),
            (r'convs\.conv3\.', 'convs.2.'),
            (r'proj_conv\.', 'project.'),
        )
    ),
)
SHAPE = tuple(
    (old, f'decode_head.shape.{new}')
    for i, side in enumerate((3, 4, 7))
    for old, new in (
        (rf'dsn{side}\.', f'sides.{i}.'),
        (rf'res{i + 1}\.', f'blocks.{i}.'),
        (rf'd{i + 1}\.', f'narrow.{i}.'),
        (rf'gate{i + 1}\._gate_conv\.0\.', f'gated.{i}.norm_features.'),
        (rf'gate{i + 1}\._gate_conv\.1\.', f'gated.{i}.mix_features.'),
        (rf'gate{i + 1}\._gate_conv\.3\.', f'gated.{i}.squeeze.'),
        (rf'gate{i + 1}\._gate_conv\.4\.', f'gated.{i}.norm_gate.'),
        (rf'gate{i + 1}\.weight', f'gated.{i}.conv.weight'),
    )
)
HEAD = (
    (r'fuse\.', 'decode_head.shape.conv_edge.'),
    (r'cw\.', 'decode_head.conv_attention.'),
    *(
        (rf'aspp\.{old}\.{i}\.', rf'decode_head.pyramid.{new}.{layer}.')
        for old, new in (
            (r'features\.(\d)', r'aspp.\1'),
            ('img_conv', 'image_pool'),
            ('edge_conv', 'edge_conv'),
        )
        for i, layer in enumerate(('conv', 'bn'))
    ),
    (r'bot_fine\.', 'decode_head.fine.'),
    (r'bot_aspp\.', 'decode_head.bottleneck.'),
    (r'final_seg\.0\.', 'decode_head.decoder.0.conv.'),
    (r'final_seg\.1\.', 'decode_head.decoder.0.bn.'),
    (r'final_seg\.3\.', 'decode_head.decoder.1.conv.'),
    (r'final_seg\.4\.', 'decode_head.decoder.1.bn.'),
    (r'final_seg\.6\.', 'decode_head.conv_seg.'),
)
# Biases before a norm: in training the norm cancels them; here its running mean absorbs them.
CANCELLED = (
    *(
        (f'dsn{side}.bias', f'gate{i}._gate_conv.0.running_mean')
        for i, side in enumerate((3, 4, 7), 1)
    ),
    *((f'gate{i}._gate_conv.3.bias', f'gate{i}._gate_conv.4.running_mean') for i in (1, 2, 3)),
)
UNUSED = re.compile(r'(dsn1|bn_out|classifier|fc)\.')  # all but dsn1: only for ImageNet


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``GSCNN`` with ``WiderResNetA2`` and ``GSCNNHead``, or of a part of it.

    The released WiderResNet-38 for ImageNet becomes ``backbone``. ``dsn1`` is omitted; the released
    model never uses it.
    """
    weights = {name: x for name, x in state_dict.items() if not UNUSED.match(name)}
    for bias, mean in CANCELLED:
        if bias in weights and mean in weights:
            shifted = weights[mean].clone()
            shifted[-1] -= weights.pop(bias)[0]  # only this channel has the bias
            weights[mean] = shifted
    return _split_gates(rename(weights, (*BACKBONE, *SHAPE, *HEAD)))


def _split_gates(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Splits a gate's weights, whose released input is features and one channel concatenated."""
    split = {}
    for name, x in weights.items():
        if '.mix_features.weight' in name:
            side = name.replace('mix_features', 'mix_side')
            split[name], split[side] = x[:, :-1].clone(), x[:, -1:].clone()
        elif '.norm_features.' in name:
            side = name.replace('norm_features', 'norm_side')
            split[name], split[side] = (x[:-1].clone(), x[-1:].clone()) if x.ndim else (x, x)
        else:
            split[name] = x
    return split
