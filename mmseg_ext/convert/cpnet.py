"""Released names of CPNet (in the layout of MMSegmentation 0.x), which are ours too."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .renaming import rename

HEAD = 'conv_seg|aggregation|prior_conv|intra_conv|inter_conv|bottleneck'


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``EncoderDecoder`` with ``CPNetHead``, each under its released name."""
    return rename(
        state_dict,
        (
            (r'(backbone\.)', r'\1'),
            (rf'(decode_head\.(?:{HEAD})\.)', r'\1'),
            (r'(auxiliary_head\.(?:convs|conv_seg)\.)', r'\1'),
        ),
    )


def resize_prior(
    state_dict: Mapping[str, Tensor], old: tuple[int, int], new: tuple[int, int]
) -> dict[str, Tensor]:
    """Weights for another ``prior_size``: an approximation that needs further training.

    The weights of the prior are resized like an image.

    Args:
        state_dict: Weights of a model with ``CPNetHead``.
        old: Rows and columns of the grid in these weights.
        new: Rows and columns of the grid in the result.

    Raises:
        UserError: The weights do not have a prior of the size ``old``.
    """
    resized = dict(state_dict)
    prior = {n: t for n, t in state_dict.items() if '.prior_conv.' in n and t.ndim}
    cells = {len(t) for t in prior.values()}
    if cells != {old[0] * old[1]}:
        raise UserError(
            f'a prior of {old} has {old[0] * old[1]} cells, these weights have '
            f'{", ".join(map(str, cells)) or "none"}: give the size that they were trained with'
        )
    for name, tensor in prior.items():
        maps = tensor.reshape(1, *old, -1).movedim(3, 1)  # (1, channels or 1, rows, columns)
        maps = F.interpolate(maps, new, mode='bilinear', align_corners=False)
        resized[name] = maps.movedim(1, 3).reshape(-1, *tensor.shape[1:])
    return resized
