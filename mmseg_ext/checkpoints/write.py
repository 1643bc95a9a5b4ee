"""Writing a file so that a kill or a full disk leaves the old or the new one whole."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from ..errors import UserError

UNFINISHED = '.unfinished'
LONGEST = 255  # bytes of a file's name, in nearly every file system


def write_atomically(content: bytes, path: str | Path) -> None:
    """Writes a file beside ``path`` and renames it, so that ``path`` is never half written.

    Raises:
        UserError: The file cannot be written, for example because the disk is full. An older file
            at ``path`` stands, and nothing unfinished is left.
    """
    path = Path(path)
    unfinished = path.with_name(_short(path.name) + UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise UserError(
            f'{path} cannot be written ({error.strerror or error}), and older files stand: '
            'make room or name another folder'
        ) from error


def _short(name: str) -> str:
    """The name, or its hash where the name leaves no room for an ending."""
    encoded = os.fsencode(name)
    fits = len(encoded) + len(UNFINISHED) <= LONGEST
    return name if fits else hashlib.sha256(encoded).hexdigest()
