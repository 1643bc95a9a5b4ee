"""Access to a decode head's features and logits, and the base of heads that wrap a head."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import torch
from mmengine.model import BaseModule
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ..errors import UserError

T = TypeVar('T')


class FeatureTap:
    """Returns the input and the output of ``conv_seg``, the last layer of a decode head.

    It is a plain object without state-dict keys. Its owner makes it once, in the constructor. One
    forward hook records during a call and stores nothing after it. A copy or pickle of the owner
    has its own tap. For compile and export the module is unchanged.

    Args:
        head: Decode head whose logits are the output of its module ``conv_seg``.
        before_dropout: Whether the features are the input of the dropout before ``conv_seg``, in a
            head that has one.

    Raises:
        UserError: The head has no ``conv_seg``.
    """

    def __init__(self, head: nn.Module, *, before_dropout: bool = False) -> None:
        conv_seg = getattr(head, 'conv_seg', None)
        if conv_seg is None:
            raise UserError(
                f'{type(head).__name__} has no conv_seg, the last layer that gives the logits: '
                'choose a head that has one, such as FCNHead'
            )
        # Calls of conv_seg, and of dropouts, during a call.
        self._hits: tuple[list[tuple[Tensor, Tensor, bool]], list[tuple[Tensor, Tensor]]] | None
        self._hits = None
        # A bound method, not a closure, so that the hook of a copied module uses the copied tap.
        conv_seg.register_forward_hook(self._record)
        for module in head.modules() if before_dropout else ():
            if isinstance(module, _DropoutNd):
                module.register_forward_hook(self._record_dropout)

    def _record_dropout(self, _: nn.Module, args: tuple[Tensor, ...], dropped: Tensor) -> None:
        if self._hits is not None:
            self._hits[1].append((args[0], dropped))

    def _record(self, conv_seg: nn.Module, args: tuple[Tensor, ...], logits: Tensor) -> None:
        if self._hits is not None:
            self._hits[0].append((args[0], logits, torch.is_grad_enabled()))

    def __call__(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> tuple[T, Tensor, Tensor]:
        """Runs ``fn(*args, **kwargs)``, which runs the head once.

        Args:
            fn: The head, its ``loss`` or ``predict``, or a function that calls one of them.
            *args: Arguments of ``fn``.
            **kwargs: Keyword arguments of ``fn``.

        Returns:
            The result of ``fn``, the features (N, C, h, w) that enter ``conv_seg`` (after dropout,
            or before it as the constructor says), and the logits (N, K, h, w) that leave it. Both
            are in the graph and keep their dtype.

        Raises:
            UserError: ``conv_seg`` did not run exactly once, or ran without gradients.
        """
        hits: list[tuple[Tensor, Tensor, bool]] = []
        drops: list[tuple[Tensor, Tensor]] = []
        self._hits = hits, drops
        try:
            result = fn(*args, **kwargs)
        finally:
            self._hits = None
        if len(hits) != 1:
            raise UserError(
                f'the head ran conv_seg {len(hits)} times in one call instead of once: choose a '
                'head whose logits are the output of conv_seg, and build a new model instead of '
                'replacing that layer'
            )
        features, logits, with_grad = hits[0]
        if with_grad != torch.is_grad_enabled():
            raise UserError(
                'the head ran conv_seg without gradients, as reentrant checkpointing does, so '
                'losses of its features cannot train it: use checkpointing with use_reentrant=False'
            )
        features = next((x for x, dropped in drops if dropped is features), features)
        return result, features, logits


def substitute(result: Any, logits: Tensor, new: Any) -> Any:
    """A copy of a head's ``result`` with ``new`` in place of the tensor ``logits``.

    Args:
        result: Tensor, or nested tuples, lists and dicts of tensors; it is not changed.
        logits: Tensor that left ``conv_seg``; it is found by identity.
        new: Replacement of ``logits``.

    Raises:
        UserError: ``logits`` is not in ``result`` exactly once.
    """
    swapped, count = _swap(result, logits, new)
    if count != 1:
        raise UserError(
            f'the output of conv_seg is {count} times in the result of the head instead of once: '
            'choose a head that returns its logits as they leave conv_seg'
        )
    return swapped


def _swap(item: Any, old: Tensor, new: Any) -> tuple[Any, int]:
    if item is old:
        return new, 1
    if isinstance(item, dict):
        values, count = _swap(list(item.values()), old, new)
        return dict(zip(item, values, strict=True)), count
    if isinstance(item, (list, tuple)):
        pairs = [_swap(value, old, new) for value in item]
        return type(item)([value for value, _ in pairs]), sum(count for _, count in pairs)
    return item, 0


class WrapperHead(BaseModule):
    """Base of heads that extend any decode head: ``self.head``, with the tap ``self.tap``.

    Attributes and methods that a wrapper does not define are those of the inner head. So segmentors
    and hooks find ``num_classes``, ``align_corners`` or ``predict``. A wrapper that changes logits
    has to define ``loss`` and ``predict``.

    Parameters have the prefix of the inner head (``decode_head.head.conv_seg.weight``). Loading
    also accepts the names of the plain head (``decode_head.conv_seg.weight``), to which
    ``plain_state_dict`` converts.

    Args:
        head: Config of the inner head; its keys override those of ``kwargs``.
        **kwargs: Further keys of a decode head (``num_classes``, ``in_channels``, ...).

    Raises:
        UserError: ``head`` is no config, its ``type`` is not registered, or it cannot be wrapped:
            a cascade or a part of one, a wrapper, or a head without ``conv_seg``.
    """

    def __init__(self, head: dict, **kwargs: Any) -> None:
        super().__init__()
        name = type(self).__name__
        if isinstance(head, (list, tuple)):
            raise UserError(f'{name} wraps one head, got a cascade of {len(head)}: give one dict')
        if not isinstance(head, dict) or 'type' not in head:
            raise UserError(f'{name} needs the config of a head, dict(type=...), got head={head!r}')
        if isinstance(head['type'], str) and MODELS.get(head['type']) is None:
            heads = [key for key in MODELS.module_dict if key.endswith('Head')]
            similar = ', '.join(get_close_matches(head['type'], heads, n=3, cutoff=0))
            raise UserError(f'{name} got head type {head["type"]!r}, not registered: try {similar}')
        self.head = MODELS.build({**kwargs, **head})
        kind = type(self.head).__name__
        if isinstance(self.head, BaseCascadeDecodeHead):
            raise UserError(
                f'{name} cannot wrap {kind}, which needs the output of a head before it: '
                'choose a head that works alone'
            )
        if isinstance(self.head, WrapperHead):
            raise UserError(f'{name} cannot wrap {kind}, itself a wrapper: give its inner head')
        self.tap = FeatureTap(self.head)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the inner head and returns its result."""
        return self.head(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # torch, mmengine and copy ask for private names, some before ``head`` exists.
            if name.startswith('_') or name == 'head':
                raise
        return getattr(self.head, name)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        names = self.head.state_dict(keep_vars=True).keys()
        # Check all names: a single name can belong to both (DDRHead has a module ``head``).
        if not any(f'{prefix}head.{name}' in state_dict for name in names):
            plain = [name for name in names if prefix + name in state_dict]
            moved = {f'{prefix}head.{name}': state_dict.pop(prefix + name) for name in plain}
            state_dict.update(moved)
        super()._load_from_state_dict(state_dict, prefix, *args)


def plain_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Renames weights of a model with wrapper heads for the model with plain heads.

    ``decode_head.head.X`` becomes ``decode_head.X``; weights of the wrapper itself are omitted.

    Raises:
        UserError: ``state_dict`` has no wrapped head.
    """
    matches = [re.match(r'((?:.*\.)?)head\.conv_seg\.', name) for name in state_dict]
    wrappers = tuple({match[1] for match in matches if match})
    if not wrappers:
        raise UserError(
            f'none of the {len(state_dict)} names is like decode_head.head.conv_seg.weight: '
            'no head is wrapped, so use these weights as they are'
        )
    plain = {name: value for name, value in state_dict.items() if not name.startswith(wrappers)}
    for wrapper in wrappers:
        inner = f'{wrapper}head.'
        for name, value in state_dict.items():
            if name.startswith(inner):
                plain[wrapper + name.removeprefix(inner)] = value
    return plain
