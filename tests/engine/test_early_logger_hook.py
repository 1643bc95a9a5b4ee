"""The first log lines of a training, and the warning where its threads wait."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook

from mmseg_ext.engine import ResumableRunner
from tests.engine.tiny_run import config, write_images
from tests.tiny_run import forget_visualizers


def logged_iterations(runner: ResumableRunner) -> list[int]:
    text = next(Path(runner.log_dir).glob('*.log')).read_text()
    return [int(number) for number in re.findall(r'Iter\(train\) \[ *(\d+)/', text)]


class WaitHook(Hook):
    """A step that waits as for a core: it takes time, but no CPU time."""

    priority = 'VERY_HIGH'

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(0.4)


def run(folder: Path, **changes: Any) -> ResumableRunner:
    """A training that logs every four iterations."""
    forget_visualizers()
    cfg = config(folder / 'data', folder / 'run', custom_hooks=[], log_level='INFO', **changes)
    cfg.param_scheduler = []
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=cfg.pop('iterations'))
    runner: ResumableRunner = ResumableRunner.from_cfg(cfg)
    return runner


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / 'data')
    return tmp_path


def test_iterations_1_and_5_are_logged_with_their_loss(folder: Path) -> None:
    runner = run(folder, iterations=10)
    runner.train()
    assert logged_iterations(runner) == [1, 4, 5, 8]
    losses = runner.message_hub.get_scalar('train/loss')
    assert len(losses._log_history) == 10
    again = run(folder, iterations=20, resume=True)
    again.train()
    assert logged_iterations(again) == [11, 12, 15, 16, 20]


@pytest.mark.parametrize('waits', [True, False])
def test_threads_that_wait_for_a_core_are_told_of(
    waits: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = run(folder, iterations=6)
    if waits:
        runner.register_hook(WaitHook())
    else:  # as on a machine that nothing else uses
        monkeypatch.setattr(time, 'process_time', time.perf_counter)
    runner.train()
    text = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert ('times their CPU time' in text and 'set OMP_NUM_THREADS' in text) == waits
