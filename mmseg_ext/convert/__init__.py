"""Conversion of released checkpoints to this package: one module with a key map per paper."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from torch import Tensor

from mmseg_ext.checkpoints.safe_load import UNREADABLE, load_file
from mmseg_ext.checkpoints.safetensors_file import SUFFIX, load_safetensors

from ..errors import UserError
from ..layers.feature_tap import plain_state_dict
from ..papers.dsrl.segmentor import TRAINING_ONLY
from .renaming import OtherModelError

__all__ = ['convert', 'converters', 'read_weights']


def converters() -> dict[str, Callable[..., dict[str, Tensor]]]:
    """Converters by paper, and ``plain``, which removes weights of wrapper heads or training.

    ``<paper>_to_<names>`` goes the other way, where a module has ``OTHER_DIRECTIONS``.
    """
    papers = {name: module.convert for name, module in _modules().items()}
    others = {
        f'{paper}_to_{name}': function
        for paper, module in _modules().items()
        for name, function in getattr(module, 'OTHER_DIRECTIONS', {}).items()
    }
    return papers | others | dict(plain=plain)


def _modules() -> dict[str, Any]:
    """Modules of converters by paper.

    One says ``SEVERAL_FILES = True`` where its paper was released in several files.
    """
    modules = {i.name: import_module(f'{__name__}.{i.name}') for i in iter_modules(__path__)}
    return {name: module for name, module in modules.items() if hasattr(module, 'convert')}


def plain(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a model without wrapper heads, or of ``DSRL`` without its training-only modules.

    Raises:
        UserError: The weights have no wrapper head and no training-only module.
    """
    prefixes = tuple(f'{module}.' for module in TRAINING_ONLY)
    weights = {name: t for name, t in state_dict.items() if not name.startswith(prefixes)}
    return weights if len(weights) < len(state_dict) else plain_state_dict(state_dict)


def convert(paper: str, *files: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the names of this package's model of ``paper``.

    Args:
        paper: Name of a paper, a key of ``converters()``.
        *files: Tensors by released name, with or without the prefix of data parallel training.
            Several files are taken if the paper was released in several.

    Raises:
        UserError: ``paper`` or a name in ``files`` is unknown, or there are too many files.
    """
    available = converters()
    if paper not in available:
        raise UserError(f'no converter is called {paper!r}: choose from {", ".join(available)}')
    if len(files) > 1 and not getattr(_modules().get(paper), 'SEVERAL_FILES', False):
        raise UserError(f'{paper} was released in one file, got {len(files)}: give one')
    named = [{n.removeprefix('module.'): t for n, t in f.items()} for f in files]
    try:
        return available[paper](*named)
    except OtherModelError as error:
        alternatives = ', '.join(name for name in available if name != paper)
        raise UserError(f'{error}; if it is not of {paper}, choose from {alternatives}') from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a file of weights or a checkpoint; it runs no code from the file.

    Raises:
        UserError: The file does not exist or is no checkpoint.
    """
    if not Path(path).is_file():
        raise UserError(f'{path} is not a file: give the downloaded checkpoint')
    try:
        is_safetensors = Path(path).suffix == SUFFIX
        checkpoint: Any = load_safetensors(path) if is_safetensors else load_file(path)
    except UNREADABLE as error:
        raise UserError(
            f'{path} cannot be read as a checkpoint of tensors: download it again, or save its '
            f'state_dict alone ({type(error).__name__}: {str(error).partition(".")[0]})'
        ) from error
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
    named = checkpoint if isinstance(checkpoint, Mapping) else {}
    weights = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if not weights or not all(isinstance(name, str) for name in weights):
        raise UserError(f'{path} holds no tensors by name: give a checkpoint or a state_dict')
    return weights
