"""Files are written as a whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from mmseg_ext.checkpoints import write
from mmseg_ext.errors import UserError


def test_a_full_disk_leaves_the_old_file_and_nothing_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write.write_atomically(b'old', tmp_path / 'a')

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(write.os, 'fsync', fail)
    with pytest.raises(UserError, match=r'a cannot be written \(No space left on device\)'):
        write.write_atomically(b'new', tmp_path / 'a')
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {'a': b'old'}
