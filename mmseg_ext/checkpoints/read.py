"""Reading a checkpoint from a file or an address, without running code from it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from types import NoneType
from typing import Any

from mmengine.model import PretrainedInit
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_local

from ..errors import UserError
from ..host import reads_checkpoints_by
from .packages import SCHEME, file_in_package
from .safe_load import (
    TRUST,
    UNREADABLE,
    is_saved_by_torch,
    is_trusting,
    load_file,
    without_code,
)

NO_CHECKPOINT = 'is damaged or no checkpoint of PyTorch: give another file'

MORE_THAN_TENSORS = (
    'holds objects that only code from the file can restore: give a file with its state_dict alone '
    f'or, if you trust where it comes from, set {TRUST}=1'
)


# Contents of files by path and time of the last change; None outside of ``reading_once``.
_contents: dict[tuple[str, int], Any] | None = None


@contextmanager
def reading_once() -> Iterator[None]:
    """Reads each checkpoint file only once inside this context, also for the host's Runner.

    The contents stay in memory, on the CPU, until the context or ``forget_checkpoints`` ends it.
    """
    global _contents
    if _contents is not None:  # inside of another such context
        yield
        return
    _contents = {}
    try:
        with reads_checkpoints_by(load_from_local_once):
            yield
    finally:
        _contents = None


def forget_checkpoints() -> None:
    """Frees the contents that ``reading_once`` holds, and holds no further ones."""
    global _contents
    _contents = None


def load_from_local_once(path: str, map_location: Any = None) -> Any:
    """Content of a file for the host's loader; on the CPU if it was read before."""
    return _once(
        os.path.expanduser(path), lambda path: load_from_local(path, map_location=map_location)
    )


def _once(path: str, load: Callable[[str], Any]) -> Any:
    if _contents is None or not Path(path).is_file():
        return load(path)
    key = (os.path.realpath(path), os.stat(path).st_mtime_ns)
    if key not in _contents:
        _contents[key] = load(path)
    return _contents[key]


def read_checkpoint(checkpoint: str) -> dict[str, Any]:
    """Content of a checkpoint, a path or an address, on the CPU.

    Raises:
        UserError: It cannot be fetched, is damaged or no checkpoint, reading it would run code
            from it, or its meta is not as the host writes it.
    """
    checkpoint = local_file(checkpoint) or checkpoint
    try:
        if Path(checkpoint).is_file() and not is_trusting():
            loaded = _once(checkpoint, load_file)
        else:
            with without_code():
                loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    except UNREADABLE as error:
        is_file = Path(checkpoint).is_file()
        if isinstance(error, UnpicklingError) and (not is_file or is_saved_by_torch(checkpoint)):
            raise UserError(f'{checkpoint} {MORE_THAN_TENSORS}') from error
        if is_file:
            raise UserError(f'{checkpoint} {NO_CHECKPOINT}') from error
        raise UserError(
            f'the weights {checkpoint} cannot be fetched ({type(error).__name__}: {error}); '
            '"--init none" starts from random weights, "--init PATH" from a file'
        ) from error
    if not isinstance(loaded, dict):
        raise UserError(f'{checkpoint} {NO_CHECKPOINT}')
    _require_meta(checkpoint, loaded)
    return loaded


def local_file(checkpoint: str) -> str | None:
    """Path of a checkpoint that is a file or in an installed package; None for other addresses.

    Raises:
        UserError: The package is not installed or has not one file of weights, or it is damaged.
    """
    if checkpoint.startswith(SCHEME):
        return str(file_in_package(checkpoint))
    return checkpoint if Path(checkpoint).is_file() else None


@CheckpointLoader.register_scheme(prefixes=SCHEME, force=True)
def _load_from_package(address: str, map_location: Any = None) -> Any:
    """Content of a file in a package, for the host's loader."""
    return load_from_local_once(str(file_in_package(address)), map_location)


def _require_meta(checkpoint: str, loaded: dict[str, Any]) -> None:
    meta = loaded.get('meta')
    require_type(checkpoint, 'meta', meta, (dict, NoneType))
    data = (meta or {}).get('dataset_meta')
    require_type(checkpoint, 'meta.dataset_meta', data, (dict, NoneType))
    classes = (data or {}).get('classes')
    require_type(checkpoint, 'meta.dataset_meta.classes', classes, (list, tuple, NoneType))
    for name in classes or ():
        require_type(checkpoint, f'the class {name!r}', name, (str,))


def require_type(checkpoint: str, name: str, value: Any, types: tuple[type, ...]) -> None:
    """Refuses a checkpoint that holds a value of another type under a name."""
    if not isinstance(value, types):
        raise UserError(
            f'{checkpoint} holds {name} of type {type(value).__name__} and not '
            f'{types[0].__name__}: give another file'
        )


def classes_of(loaded: dict[str, Any]) -> tuple[str, ...]:
    """Names of the classes in a checkpoint's meta, or none."""
    meta = loaded.get('meta') or {}
    return tuple((meta.get('dataset_meta') or {}).get('classes') or ())


def state_dict_of(checkpoint: str) -> dict[str, Any]:
    """State dict of a checkpoint, a path or an address."""
    return state_dict_in(checkpoint, read_checkpoint(checkpoint))


def state_dict_in(checkpoint: str, loaded: dict[str, Any]) -> dict[str, Any]:
    """State dict of a checkpoint that was read, without the prefix of a parallel model.

    Raises:
        UserError: It is no dict by name.
    """
    state = loaded.get('state_dict', loaded)
    require_type(checkpoint, 'its state_dict', state, (dict,))
    for name in state:
        require_type(checkpoint, f'the name {name!r} of a weight', name, (str,))
    return {name.removeprefix('module.'): tensor for name, tensor in state.items()}


def is_pretrained(init_cfg: Any) -> bool:
    """Whether an ``init_cfg`` reads weights."""
    return isinstance(init_cfg, dict) and init_cfg.get('type') in ('Pretrained', PretrainedInit)


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """Checkpoint that ``last_checkpoint`` in a folder names; None without that file.

    If a file of this name is in the folder itself, it counts: the folder may have been moved or
    copied since the name was written.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    if not pointer.is_file():
        return None
    named = Path(pointer.read_text().strip() or 'nothing')
    here = Path(work_dir, named.name)
    return str(here if here.is_file() else named)
