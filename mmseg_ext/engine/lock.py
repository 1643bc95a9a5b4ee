"""A single training per folder: a lock file with the host and the process that trains."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

LOCK = 'training.lock'


@contextmanager
def only_training(work_dir: str | Path) -> Iterator[None]:
    """Refuses a second training in a folder while this context lasts.

    The file names the host and the process. The system's lock on the file tells whether that
    process still runs, on other hosts too, so a file that a killed training left is taken over.
    Where the file system has no locks, nothing is refused.

    Raises:
        UserError: Another process trains in this folder.
    """
    path = Path(work_dir, LOCK)
    file = _open_locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _open_locked(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Data workers do not inherit this kind of lock: it ends with the training itself.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.read(file, 1000).decode(errors='replace').strip()
            os.close(file)
            raise UserError(
                f'{path.parent} belongs to a running training ({holder or path}): stop it, or give '
                'another folder by --work-dir'
            ) from None
        except OSError:
            return file
        if path.exists() and os.path.samestat(os.stat(path), os.fstat(file)):
            break
        os.close(file)  # a training that ended meanwhile has removed this file
    os.ftruncate(file, 0)
    os.write(file, f'host {socket.gethostname()}, process {os.getpid()}\n'.encode())
    return file
