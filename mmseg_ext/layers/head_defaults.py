"""Arguments of decode heads that released code agrees on, where the host has other defaults."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Mean of the pixels that have a class, PyTorch's own; the host's default counts ignored ones too.
CROSS_ENTROPY = MappingProxyType(dict(type='CrossEntropyLoss', avg_non_ignore=True))


def released_defaults(kwargs: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """Arguments for the host's ``BaseDecodeHead``, completed by the defaults of released code.

    These are no ``init_cfg``, batch norm, and cross entropy as PyTorch averages it.

    Args:
        kwargs: Arguments that the user gave; they replace every default.
        **defaults: Defaults of one head; they replace those of released code.
    """
    common = dict(init_cfg=None, norm_cfg=dict(type='BN'), loss_decode=dict(CROSS_ENTROPY))
    return {**common, **defaults, **kwargs}
