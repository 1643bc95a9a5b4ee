"""Names of DSRL's released ESPNetv2, of EdgeNets' ESPNetv2 and of third-party DeepLabV3+."""

import re
import warnings
from collections.abc import Iterable, Mapping

from torch import Tensor

from .renaming import rename

Patterns = tuple[tuple[str, str], ...]
RELEASED = ('base_net.', 'bu_dec_l', 'bu_br_l', 'merge_enc_dec_l')  # prefixes of its names
ENCODER = re.compile(r'level[1-4](_0)?\.')  # EdgeNets' classifier of ImageNet, without prefix
CLASSIFIER = re.compile(r'level5(_0)?\.|classifier\.')
CONV = ((r'conv\.', 'conv.'), (r'bn\.', 'bn.'), (r'act\.', 'activate.'))
CBR = ((r'cbr\.0\.', 'conv.'), (r'cbr\.1\.', 'bn.'), (r'cbr\.2\.', 'activate.'))


def _inside(old: str, new: str, patterns: Iterable[tuple[str, str]]) -> Patterns:
    return tuple((old + inner, new + ours) for inner, ours in patterns)


BACKBONE = (
    *_inside(r'base_net\.level1\.', 'backbone.level1.', CONV),
    *_inside(
        r'base_net\.(?P<block>level\d_0\.eesp|level\d\.\d)\.',
        r'backbone.\g<block>.',
        (
            *_inside(r'proj_1x1\.', 'reduce.', CONV),
            (r'spp_dw\.(?P<branch>\d)\.conv\.', r'branches.\g<branch>.'),
            (r'br_after_cat\.bn\.', 'fuse.0.'),
            (r'br_after_cat\.act\.', 'fuse.1.'),
            *_inside(r'conv_1x1_exp\.', 'expand.', CONV),
            (r'module_act\.', 'act.'),
        ),
    ),
    *_inside(
        r'base_net\.(?P<block>level\d_0)\.inp_reinf\.(?P<conv>\d)\.',
        r'backbone.\g<block>.reinforce.\g<conv>.',
        CONV,
    ),
    (r'base_net\.(?P<block>level\d_0)\.act\.', r'backbone.\g<block>.act.'),
)
POOL = (
    *_inside(r'projection_layer\.', 'project.', CBR),
    (r'stages\.', 'stages.'),
    (r'merge_layer\.0\.br\.', 'fuse.'),
    *_inside(r'merge_layer\.2\.', 'mix.', CBR),
    (r'merge_layer\.3\.', 'out.0.'),
    (r'br\.br\.', 'out.1.'),
)
GATE = (*_inside(r'expansion_layer\.', 'expand.', CBR), (r'wt_layer\.1\.', 'weigh.'))
ESPNETV2 = (
    *BACKBONE,
    (r'bu_dec_l4\.merge_layer\.3\.', 'decode_head.conv_seg.'),
    *(
        pair
        for i in range(4)
        for pair in _inside(rf'bu_dec_l{i + 1}\.', f'decode_head.pools.{i}.', POOL)
    ),
    *(
        pair
        for i in range(3)
        for pair in _inside(rf'merge_enc_dec_l{i + 2}\.', f'decode_head.gates.{i}.', GATE)
    ),
    *((rf'bu_br_l{i + 2}\.', f'decode_head.norms.{i}.') for i in range(3)),
    (r'bu_dec_l5\.', 'sssr.stages.0.'),
    (r'bu_dec_l6\.', 'sssr.stages.1.'),
)
DECODER = (
    (r'conv1\.', 'decoder.reduce.conv.'),
    (r'bn1\.', 'decoder.reduce.bn.'),
    (r'last_conv\.0\.', 'decoder.convs.0.conv.'),
    (r'last_conv\.1\.', 'decoder.convs.0.bn.'),
    (r'last_conv\.4\.', 'decoder.convs.2.conv.'),
    (r'last_conv\.5\.', 'decoder.convs.2.bn.'),
)
DEEPLAB = (
    (r'backbone\.', 'backbone.'),
    *(
        pair
        for i in range(4)
        for pair in (
            (rf'aspp\.aspp{i + 1}\.atrous_conv\.', f'neck.aspp.{i}.conv.'),
            (rf'aspp\.aspp{i + 1}\.bn\.', f'neck.aspp.{i}.bn.'),
        )
    ),
    (r'aspp\.global_avg_pool\.1\.', 'neck.image_pool.1.conv.'),
    (r'aspp\.global_avg_pool\.2\.', 'neck.image_pool.1.bn.'),
    (r'aspp\.conv1\.', 'neck.bottleneck.conv.'),
    (r'aspp\.bn1\.', 'neck.bottleneck.bn.'),
    *_inside(r'decoder\.', 'decode_head.', (*DECODER, (r'last_conv\.8\.', 'conv_seg.'))),
    *_inside(r'sr_decoder\.', 'sisr.', (*DECODER, (r'last_conv\.8\.', 'project.'))),
    *(
        pair
        for i in range(3)
        for pair in (
            (rf'up_sr_{i + 1}\.', f'sisr.doublings.{i}.deconv.'),
            (rf'up_edsr_{i + 1}\.conv\.', f'sisr.doublings.{i}.residual.'),
            (rf'up_edsr_{i + 1}\.residual_upsampler\.0\.', f'sisr.doublings.{i}.shortcut.'),
        )
    ),
    (r'up_conv_last\.', 'sisr.conv_image.'),
    (r'pointwise\.0\.', 'fa_transform.conv.'),
    (r'pointwise\.1\.', 'fa_transform.bn.'),
)


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``DSRL``; without its upsampler if they are of ESPNetv2 by EdgeNets.

    Of a classifier of ImageNet by EdgeNets only the encoder remains. A warning names the tensors
    that the released model ignores too.
    """
    if any(ENCODER.match(name) for name in state_dict):
        encoder = {n: t for n, t in state_dict.items() if not CLASSIFIER.match(n)}
        state_dict = {f'base_net.{name}': tensor for name, tensor in encoder.items()}
    if not any(name.startswith('base_net.') for name in state_dict):
        return _without_bias(rename(state_dict, DEEPLAB))
    ignored = [name for name in state_dict if not name.startswith(RELEASED)]
    if ignored:
        warnings.warn(
            f'{len(ignored)} of {len(state_dict)} tensors belong to no module of the network and '
            f'are omitted: {", ".join(ignored[:5])}{", ..." if len(ignored) > 5 else ""}',
            stacklevel=2,
        )
    unused = '_0.eesp.module_act.weight'  # down-samplers never use it
    weights = {n: t for n, t in state_dict.items() if n not in ignored and not n.endswith(unused)}
    return rename(weights, ESPNETV2)


def _without_bias(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Moves the transform's bias into the running mean of the next norm: mean - bias."""
    bias = weights.pop('fa_transform.conv.bias', None)
    if bias is not None:
        mean = 'fa_transform.bn.running_mean'
        weights[mean] = weights[mean] - bias
    return weights
