"""A decode head's features and logits for its owner, and the base of heads that wrap a head."""

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

from ..errors import UserError

T = TypeVar('T')


class FeatureTap:
    """Shows what enters and what leaves ``conv_seg``, a decode head's last layer, in one call.

    A plain object: no module, no state-dict keys. Its owner makes it once, in the constructor. One
    persistent hook records only while a call is under way: nothing outlives the call, copies and
    pickles of the owner carry a tap of their own, compile and export see a module without changes.

    Args:
        head: A decode head whose logits are the output of its module ``conv_seg``.

    Raises:
        ValueError: the head has no ``conv_seg``.
    """

    def __init__(self, head: nn.Module) -> None:
        conv_seg = getattr(head, 'conv_seg', None)
        if conv_seg is None:
            raise UserError(
                f'{type(head).__name__} has no conv_seg, the last layer that gives the logits: '
                'choose a head that ends in one, such as FCNHead'
            )
        self._hits: list[tuple[Tensor, Tensor, bool]] | None = None
        # A bound method, not a closure: deepcopy and pickle lead the copied hook to the copied tap.
        conv_seg.register_forward_hook(self._record)

    def _record(self, conv_seg: nn.Module, args: tuple[Tensor, ...], logits: Tensor) -> None:
        if self._hits is not None:
            self._hits.append((args[0], logits, torch.is_grad_enabled()))

    def __call__(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> tuple[T, Tensor, Tensor]:
        """Runs ``fn(*args, **kwargs)``: the head, its ``loss`` or ``predict``, or what calls one.

        Returns:
            What ``fn`` returned; the features (N, C, h, w) that entered ``conv_seg``, after
            dropout; the logits (N, K, h, w) that left it. Both are in the graph and keep their
            dtype.

        Raises:
            RuntimeError: ``conv_seg`` did not run exactly once, or out of the graph.
        """
        hits: list[tuple[Tensor, Tensor, bool]] = []
        self._hits = hits
        try:
            result = fn(*args, **kwargs)
        finally:
            self._hits = None
        if len(hits) != 1:
            raise UserError(
                f'the head ran conv_seg {len(hits)} times in one call instead of once: choose a '
                'head whose logits are the output of conv_seg, and build the model anew instead '
                'of replacing that layer'
            )
        features, logits, with_grad = hits[0]
        if with_grad != torch.is_grad_enabled():
            raise UserError(
                'the head ran conv_seg without gradients, as reentrant checkpointing does, so that '
                'what uses its features cannot train it: checkpoint with use_reentrant=False'
            )
        return result, features, logits


def substitute(result: Any, logits: Tensor, new: Any) -> Any:
    """A head's ``result`` with ``new`` in the place of the very tensor ``logits``.

    Args:
        result: A tensor, or tuples, lists and dicts around tensors to any depth; stays as it is.
        logits: The tensor that left ``conv_seg``, found by identity.
        new: What takes its place.

    Raises:
        ValueError: ``logits`` is not in ``result`` exactly once.
    """
    swapped, count = _swap(result, logits, new)
    if count != 1:
        raise UserError(
            f'the output of conv_seg is {count} times in what the head returned instead of once: '
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
    """Base of heads that add to any decode head: it is ``self.head``, tapped by ``self.tap``.

    What a wrapper does not define itself, attribute or method, is the inner head's: segmentors and
    hooks find ``num_classes``, ``align_corners``, ``predict`` where they look for them, and a
    wrapper that changes logits defines ``loss`` and ``predict`` too. Parameters are named as they
    lie (``decode_head.head.conv_seg.weight``); loading also takes the names of the plain head
    (``decode_head.conv_seg.weight``), ``plain_state_dict`` goes back to them.

    Args:
        head: Config of the inner head; its keys count before those of ``kwargs``.
        **kwargs: Every other key of a decode head (``num_classes``, ``in_channels``, ...).

    Raises:
        KeyError: no head of that ``type`` is registered.
        TypeError: ``head`` is not a config.
        ValueError: a head that cannot be wrapped: (part of) a cascade, a wrapper, no ``conv_seg``.
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
            near = ', '.join(get_close_matches(head['type'], heads, n=3, cutoff=0))
            raise UserError(f'{name} got head type {head["type"]!r}, not registered: try {near}')
        self.head = MODELS.build({**kwargs, **head})
        kind = type(self.head).__name__
        if isinstance(self.head, BaseCascadeDecodeHead):
            raise UserError(
                f'{name} cannot wrap {kind}, which needs the output of a head before it: '
                'choose a head that works alone'
            )
        if isinstance(self.head, WrapperHead):
            raise UserError(f'{name} cannot wrap {kind}, itself a wrapper: give the head in it')
        self.tap = FeatureTap(self.head)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the inner head returns."""
        return self.head(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # torch, mmengine and copy ask here for private names, some before there is a head.
            if name.startswith('_') or name == 'head':
                raise
        return getattr(self.head, name)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        names = self.head.state_dict(keep_vars=True).keys()
        # Asked of all names: one name alone may be the plain head's or ours (DDRHead has a `head`).
        if not any(f'{prefix}head.{name}' in state_dict for name in names):
            plain = [name for name in names if prefix + name in state_dict]
            moved = {f'{prefix}head.{name}': state_dict.pop(prefix + name) for name in plain}
            state_dict.update(moved)
        super()._load_from_state_dict(state_dict, prefix, *args)


def plain_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of a model with wrapper heads under the names of the model with the plain heads.

    ``decode_head.head.X`` becomes ``decode_head.X``; what the wrapper itself learned is left out.

    Raises:
        ValueError: no head in ``state_dict`` is wrapped.
    """
    matches = [re.match(r'((?:.*\.)?)head\.conv_seg\.', name) for name in state_dict]
    wrappers = tuple({match[1] for match in matches if match})
    if not wrappers:
        raise UserError(
            f'none of the {len(state_dict)} names is like decode_head.head.conv_seg.weight: '
            'no head is wrapped, use these weights as they are'
        )
    plain = {name: value for name, value in state_dict.items() if not name.startswith(wrappers)}
    for wrapper in wrappers:
        inner = f'{wrapper}head.'
        for name, value in state_dict.items():
            if name.startswith(inner):
                plain[wrapper + name.removeprefix(inner)] = value
    return plain
