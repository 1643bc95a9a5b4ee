"""Renaming of released weights by patterns; an error lists names that match no pattern."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from mmseg_ext.errors import UserError


class OtherModelError(UserError):
    """Weights of another model than the model that they are converted to."""


def rename(
    state_dict: Mapping[str, Tensor], patterns: Iterable[tuple[str, str]]
) -> dict[str, Tensor]:
    """Weights by their new names.

    Args:
        state_dict: Tensors by released name.
        patterns: Pairs (regular expression, replacement); the first expression that matches the
            start of a name is used.

    Raises:
        OtherModelError: A name matches no pattern.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in patterns]
    renamed, unknown = {}, []
    for name, tensor in state_dict.items():
        for pattern, replacement in compiled:
            if pattern.match(name):
                renamed[pattern.sub(replacement, name, count=1)] = tensor
                break
        else:
            unknown.append(name)
    if unknown:
        raise OtherModelError(
            f'{len(unknown)} of {len(state_dict)} names belong to another model: '
            f'{", ".join(unknown[:5])}{", ..." if len(unknown) > 5 else ""}'
        )
    return renamed
