"""Writing a file so that a kill at any moment leaves the old or the new one whole."""

import os
from pathlib import Path

UNFINISHED = '.unfinished'


def write_atomically(content: bytes, path: str | Path) -> None:
    """Writes a file beside ``path`` and renames it, so that ``path`` is never half written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + UNFINISHED)
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
