"""Renames released weights by patterns and says which names are left over."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from mmseg_ext.errors import UserError


class OtherModelError(UserError):
    """Weights that are not of the model whose names they are to get."""


def rename(
    state_dict: Mapping[str, Tensor], patterns: Iterable[tuple[str, str]]
) -> dict[str, Tensor]:
    """Every weight under its new name.

    Args:
        state_dict: Released names to tensors.
        patterns: (regular expression, replacement), matched from the start of a name; the first
            that matches counts.

    Raises:
        OtherModelError: names that no pattern knows.
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
