"""Checkpoints that load without running code from the file (``weights_only``)."""

import copyreg
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

# The host pickles a HistoryBuffer with its functions, which are code; here it is only arrays.
copyreg.pickle(HistoryBuffer, lambda buffer: (HistoryBuffer, (*buffer.data, buffer.max_length)))
RECONSTRUCT, SCALAR = np.ndarray(0).__reduce__()[0], np.float64(0).__reduce__()[0]
# Environment variables of PyTorch: the first allows code from files, the second forbids it.
TRUST, DISTRUST = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
MAGIC = (b'PK', b'\x80\x02')  # a zip file, and a pickle as PyTorch wrote it before 1.6
STATISTICS = ('current', 'max', 'mean', 'min')
# Errors of reading a checkpoint that does not exist, or a file of another kind.
UNREADABLE = (
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    UnpicklingError,
    ValueError,
)
# Errors of reading a zip file with changed bytes.
DAMAGED = (
    BadZipFile,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    zlib.error,
)
ALLOWED: list[Any] = [
    HistoryBuffer,
    np.ndarray,
    np.dtype,
    RECONSTRUCT,
    SCALAR,
    *(type(np.dtype(name)) for name in ('float32', 'float64', 'int64')),
]


def _statistic(cls: Any, name: str) -> Any:
    """Stand-in for ``getattr`` in a file: names a statistic of the host's ``HistoryBuffer``."""
    if cls is not HistoryBuffer or name not in STATISTICS:
        raise UnpicklingError(f'{cls}.{name} is no statistic of a HistoryBuffer')
    return getattr(cls, name)


if digit_version(torch.__version__) >= digit_version('2.6'):
    ALLOWED += [
        (RECONSTRUCT, 'numpy.core.multiarray._reconstruct'),  # as numpy 1 called them
        (SCALAR, 'numpy.core.multiarray.scalar'),
        (_statistic, 'builtins.getattr'),  # in checkpoints that the host wrote without mmseg_ext
        (_statistic, '__builtin__.getattr'),
    ]
torch.serialization.add_safe_globals(ALLOWED)


def load_file(path: str | Path) -> Any:
    """Reads a checkpoint onto the CPU, with its values that are not tensors.

    Raises:
        ValueError: Bytes of the file have changed; one of ``UNREADABLE`` for other files.
    """
    if not is_whole(path):
        raise ValueError(f'{path}: its checksums differ')
    torch.serialization.add_safe_globals(ALLOWED)  # mmengine's loading removes some of them
    return torch.load(path, map_location='cpu', weights_only=True)


def is_whole(path: str | Path) -> bool:
    """Whether no byte of a file has changed since PyTorch wrote it.

    PyTorch does not compare the checksums in its zip files. Files of other kinds have none.
    """
    try:
        if not is_zipfile(path):
            return True
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except DAMAGED:
        return False


def is_trusting() -> bool:
    """Whether the user allows PyTorch to run code from files."""
    return os.environ.get(TRUST, '0').lower() in ('1', 'y', 'yes', 'true')


@contextmanager
def without_code() -> Iterator[None]:
    """Forbids code from files, which the host would allow in a second attempt."""
    if is_trusting() or DISTRUST in os.environ:
        yield
        return
    os.environ[DISTRUST] = '1'
    try:
        yield
    finally:
        del os.environ[DISTRUST]


def is_saved_by_torch(path: str | Path) -> bool:
    """Whether the first bytes of a file are those of a checkpoint of PyTorch."""
    with open(path, 'rb') as file:
        return file.read(2) in MAGIC
