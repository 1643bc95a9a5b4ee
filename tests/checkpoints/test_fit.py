"""Checkpoints that cannot be used are refused with a sentence before anything runs on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmseg.apis import init_model

from mmseg_ext.config import prepare
from mmseg_ext.engine import launch
from mmseg_ext.errors import UserError
from tests.tiny_run import forget_visualizers, write_config, write_folder


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data')))


def train(config: str, **options: Any) -> None:
    forget_visualizers()
    launch.train(prepare.prepare_training(config, **options))


# Resuming


def test_resuming_from_the_best_weights_is_refused_and_the_right_file_named(config: str) -> None:
    train(config, max_iters=1)
    folder = Path('work_dirs/tiny')
    best, last = folder / 'best_mIoU_iter_1.pth', folder / 'iter_1.pth'
    with pytest.raises(UserError, match=rf'{best} has no optimizer.*: give --resume .*{last}$'):
        train(config, resume=str(best), max_iters=2)
    train(config, resume=str(last), max_iters=2)


@pytest.mark.parametrize('part', ['optimizer', 'param_schedulers', 'message_hub', 'meta'])
@pytest.mark.parametrize('run', [launch.train, launch.dry_run])
def test_resuming_without_a_part_is_refused(config: str, part: str, run: Callable) -> None:
    train(config, max_iters=1)
    path = 'work_dirs/tiny/iter_1.pth'
    loaded = torch.load(path)
    del loaded[part]
    torch.save(loaded, path)
    cfg = prepare.prepare_training(config, resume='auto', max_iters=2)
    with pytest.raises(UserError, match=f'iter_1.pth has no {part}.*: .* by --init .*iter_1.pth$'):
        run(cfg)


def test_resuming_from_a_file_of_weights_is_refused(config: str) -> None:
    torch.save(init_model(config, device='cpu').state_dict(), 'x.pth')
    with pytest.raises(UserError, match='x.pth has no optimizer'):
        train(config, resume='x.pth', max_iters=2)
