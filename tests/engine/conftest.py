"""One uninterrupted run of each kind, which the tests of stopped ones compare with."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.engine.tiny_run import LOOPS, config, last_checkpoint, train, write_images


@pytest.fixture(scope='session')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('engine')
    write_images(folder / 'data')
    return folder


@pytest.fixture(scope='session')
def uninterrupted(folder: Path) -> Callable[[str, int], dict]:
    @cache
    def run(loop: str, processes: int) -> dict:
        cfg = config(folder / 'data', folder / f'{loop}_{processes}', **LOOPS[loop])
        assert train(cfg, processes=processes) == [(0, '')] * processes
        return last_checkpoint(Path(cfg.work_dir))

    return run
