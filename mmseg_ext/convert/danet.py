"""Released names of DANet (junfu1115/DANet) to those of this package and the host's ``DAHead``."""

from collections.abc import Mapping

from torch import Tensor

from .renaming import rename

DEEP_STEM = (
    (r'pretrained\.conv1\.(\d)\.', r'backbone.stem.\1.'),
    (r'pretrained\.bn1\.', 'backbone.stem.7.'),
)
HEAD = (
    (r'conv5a\.0\.', 'pam_in_conv.conv.'),
    (r'conv5a\.1\.', 'pam_in_conv.bn.'),
    (r'conv5c\.0\.', 'cam_in_conv.conv.'),
    (r'conv5c\.1\.', 'cam_in_conv.bn.'),
    (r'sa\.(query|key|value)_conv\.', r'pam.\1_project.'),
    (r'sa\.gamma$', 'pam.gamma.scale'),
    (r'sc\.gamma$', 'cam.gamma.scale'),
    (r'conv51\.0\.', 'pam_out_conv.conv.'),
    (r'conv51\.1\.', 'pam_out_conv.bn.'),
    (r'conv52\.0\.', 'cam_out_conv.conv.'),
    (r'conv52\.1\.', 'cam_out_conv.bn.'),
    (r'conv6\.1\.', 'pam_conv_seg.'),
    (r'conv7\.1\.', 'cam_conv_seg.'),
    (r'conv8\.1\.', 'conv_seg.'),
)


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``DANetHead`` and of a ``ResNet``, or a ``ResNetV1c`` if the stem is deep."""
    weights = {k: v for k, v in state_dict.items() if not k.startswith('pretrained.fc.')}
    deep = any(name.startswith('pretrained.conv1.0.') for name in weights)
    head = ((rf'head\.{old}', f'decode_head.{new}') for old, new in HEAD)
    patterns = (*(DEEP_STEM if deep else ()), (r'pretrained\.', 'backbone.'), *head)
    renamed = rename(weights, patterns)
    # Released gammas are vectors of length 1.
    return {k: v.reshape(()) if k.endswith('gamma.scale') else v for k, v in renamed.items()}
