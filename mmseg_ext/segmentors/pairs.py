"""Segmentors and decode heads that need each other, checked when a model is built."""

from collections.abc import Mapping
from typing import Any

from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import nn

from ..errors import UserError
from .protocols import NeedsSegmentor


def check_head_class(decode_head: Any, head_class: type[nn.Module], advice: str) -> None:
    """Refuses the config of a decode head of another class.

    Args:
        decode_head: Config of the head, or a list of the configs of a cascade.
        head_class: Class that the segmentor needs.
        advice: Start of the error's sentence.

    Raises:
        UserError: A head of another class, or a cascade.
    """
    kind = decode_head.get('type') if isinstance(decode_head, Mapping) else 'a list'
    registered = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(registered, type) and issubclass(registered, head_class)):
        raise UserError(f'{advice}, got {kind}')


def check_needed_segmentor(segmentor: EncoderDecoder) -> None:
    """Refuses heads, also wrapped ones, that need another segmentor than this one.

    Raises:
        UserError: Such a head, or a head that needs a segmentor as an auxiliary head.
    """
    for name, module in segmentor.named_modules():
        if not isinstance(module, NeedsSegmentor) or module.needs_segmentor is None:
            continue
        if not isinstance(segmentor, MODELS.get(module.needs_segmentor)):
            raise UserError(module.segmentor_advice)
        if not name.startswith('decode_head'):
            raise UserError(
                f'{name} is a {type(module).__name__}, which {module.needs_segmentor} takes only '
                'as its decode head: choose another auxiliary head'
            )
