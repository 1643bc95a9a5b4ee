"""Streets with segments, for the tests of several files."""

from pathlib import Path

import pytest

from mmseg_ext.datasets.streets import make_streets

SMALL = (96, 192)


@pytest.fixture(scope='session')
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'streets'
    make_streets(root, num_train=3, num_val=1, num_extra=0, size=SMALL, progress=False)
    return root
