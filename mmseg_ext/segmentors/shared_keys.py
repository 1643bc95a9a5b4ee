"""Keys that all heads of a model need, written once beside ``decode_head``.

A swap of the head (``decode_head=dict(_delete_=True, type='SPNetHead')``) deletes everything in
``decode_head``. Classes, norms, levels and the ignored label stand beside it, so they stay.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ext.errors import UserError
from mmseg_ext.host import HEADS_OF_LEVELS

SHARED = ('num_classes', 'norm_cfg', 'ignore_index', 'levels', 'head_level')


def with_shared_keys(head: Any, shared: Mapping[str, Any]) -> Any:
    """Config of a head, or of a list of heads, completed by the model's keys that it does not set.

    A wrapper hands the keys to the head inside it.

    Args:
        head: Config of the head, or a list of configs.
        shared: Values of the keys ``SHARED``, None for a value that the model does not give.
            ``levels`` is for a class with ``reads_levels`` and for the host's
            ``HEADS_OF_LEVELS``, ``head_level`` for every other head.
    """
    if isinstance(head, Sequence):
        return [with_shared_keys(item, shared) for item in head]
    head = _without_delete(head)
    read = dict(shared['levels' if _reads_levels(head) else 'head_level'] or {})
    inner = head['head'] if isinstance(head.get('head'), Mapping) else {}
    written = {**head, **inner}
    if isinstance(written.get('in_channels'), int) or _class_of(head).__name__ in HEADS_OF_LEVELS:
        # one level needs none, and heads in HEADS_OF_LEVELS set it themselves
        read.pop('input_transform', None)
    keys = {key: shared[key] for key in ('num_classes', 'norm_cfg', 'ignore_index')} | read
    return {key: value for key, value in keys.items() if value is not None} | head


def _without_delete(head: Mapping) -> dict[str, Any]:
    """Config without ``_delete_``, which the host leaves where there was nothing to delete."""
    return {
        key: _without_delete(value) if key == 'head' and isinstance(value, Mapping) else value
        for key, value in head.items()
        if key != '_delete_'
    }


def _class_of(head: Mapping) -> Any:
    """Class of a head or, for a wrapper, of the head inside it; ``object`` if not registered."""
    while isinstance(head.get('head'), Mapping):
        head = head['head']
    kind = head.get('type')
    return (MODELS.get(kind) if isinstance(kind, str) else kind) or object


def _reads_levels(head: Mapping) -> bool:
    cls = _class_of(head)
    return getattr(cls, 'reads_levels', False) or cls.__name__ in HEADS_OF_LEVELS


def check_levels(heads: Mapping[str, Any], levels: Sequence[Tensor]) -> None:
    """Compares the levels that heads read with those of the backbone or neck.

    Args:
        heads: Heads by the name of their key in the model.
        levels: Levels (N, C_i, H_i, W_i).

    Raises:
        UserError: A head reads a level that does not exist, or a level with another number of
            channels.
    """
    channels = [level.shape[1] for level in levels]
    for name, head in heads.items():
        if not _fits(head, channels):
            raise UserError(
                f'{name} reads in_index={head.in_index} of in_channels={head.in_channels}, but the '
                f'model has {len(channels)} levels of {channels} channels: correct model.levels '
                f'and model.head_level, or the numbers in {name}'
            )


def _fits(head: Any, channels: Sequence[int]) -> bool:
    index = [head.in_index] if isinstance(head.in_index, int) else head.in_index
    if not all(-len(channels) <= i < len(channels) for i in index):
        return False
    read = [channels[i] for i in index]
    in_channels = head.in_channels
    return sum(read) == in_channels if isinstance(in_channels, int) else read == list(in_channels)


@torch.no_grad()
def levels_of_blank_image(model: Any, channels: int) -> Sequence[Tensor]:
    """Levels of a blank 64x64 image, from the backbone and neck of a model that is being built."""
    training = model.training
    model.eval()  # norms do not learn from it
    parameter = next(model.backbone.parameters(), torch.empty(0))
    levels = model.backbone(parameter.new_zeros(1, channels, 64, 64))
    levels = model.neck(levels) if model.with_neck else levels
    model.train(training)
    return levels
