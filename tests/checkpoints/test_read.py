"""A command reads a checkpoint once, and holds nothing of it while it trains."""

import gc
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmengine.visualization import Visualizer
from mmseg.apis import init_model
from mmseg.visualization import SegLocalVisualizer

from mmseg_ext.checkpoints import read
from mmseg_ext.config import overrides, prepare
from mmseg_ext.engine import launch, runner
from mmseg_ext.visualization.visualizer import SegmentsVisualizer
from tests.tiny_run import write_config, write_folder


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data')))


@pytest.fixture
def weights(config: str, tmp_path: Path) -> str:
    torch.save(dict(state_dict=init_model(config, device='cpu').state_dict()), 'weights.pth')
    return str(tmp_path / 'weights.pth')


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    """Number of times that each file is read, and of the tensors that are still held of it."""
    counts: Counter = Counter()
    load = torch.load

    def counted(path: Any, *args: Any, **kwargs: Any) -> Any:
        counts[Path(path).name] += 1
        loaded = load(path, *args, **kwargs)
        tensors.extend(weakref.ref(x) for x in loaded['state_dict'].values())
        return loaded

    tensors: list[weakref.ref] = []
    monkeypatch.setattr(torch, 'load', counted)
    monkeypatch.setattr(counts, 'tensors', tensors, raising=False)
    yield counts


def prepared(config: str, **options: Any) -> Config:
    for visualizer in (
        Visualizer,
        SegLocalVisualizer,
        SegmentsVisualizer,
    ):  # a command is a process of its own
        visualizer._instance_dict.clear()
    return prepare.prepare_training(config, max_iters=1, **options)


@pytest.mark.parametrize('run', [launch.train, launch.dry_run])
@pytest.mark.parametrize('runner_type', ['ResumableRunner', 'Runner'])
def test_a_training_reads_its_starting_weights_once(
    config: str, weights: str, reads: Counter, run: Callable, runner_type: str
) -> None:
    with read.reading_once():
        run(prepared(config, init=weights, cfg_options=dict(runner_type=runner_type)))
    assert reads == {'weights.pth': 1}


def test_a_file_of_pretrained_modules_is_read_once(
    config: str, weights: str, reads: Counter
) -> None:
    cfg = prepared(config)
    for module, prefix in (('backbone', 'backbone.'), ('decode_head', 'decode_head.')):
        init_cfg = dict(type='Pretrained', checkpoint=f'{module}.pth')
        cfg.model[module].init_cfg = init_cfg
        state = {k.removeprefix(prefix): v for k, v in torch.load(weights)['state_dict'].items()}
        torch.save(dict(state_dict=state), f'{module}.pth')
    reads.clear()
    launch.train(cfg)
    assert reads == {'backbone.pth': 1, 'decode_head.pth': 1}


def test_a_test_and_a_resumed_training_read_their_checkpoint_once(
    config: str, reads: Counter
) -> None:
    launch.train(prepared(config))
    checkpoint = 'work_dirs/tiny/iter_1.pth'
    launch.test(prepare.prepare_test(config, checkpoint))
    assert reads == {'iter_1.pth': 1}
    reads.clear()
    cfg = prepare.prepare_training(config, resume='auto', max_iters=2)
    launch.train(cfg)
    assert reads == {'iter_1.pth': 1}


def test_nothing_is_held_while_a_model_trains(
    config: str, weights: str, reads: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    fetch = runner.ResumableIterLoop.fetch

    def fetch_and_count(*args: Any) -> Any:
        gc.collect()
        held.append(sum(tensor() is not None for tensor in reads.tensors))  # type: ignore[attr-defined]
        return fetch(*args)

    monkeypatch.setattr(runner.ResumableIterLoop, 'fetch', fetch_and_count)
    launch.train(prepared(config, init=weights))
    assert held == [0] and reads.tensors  # type: ignore[attr-defined]


def test_a_file_that_changed_is_read_again(weights: str, reads: Counter) -> None:
    with read.reading_once():
        read.read_checkpoint(weights)
        os.utime(weights, ns=(0, 1))
        read.read_checkpoint(weights)
        CheckpointLoader.load_checkpoint(weights, 'cpu')
    read.read_checkpoint(weights)
    assert reads == {'weights.pth': 3}


def test_the_first_of_two_nested_calls_holds_the_content(weights: str, reads: Counter) -> None:
    with read.reading_once():
        with read.reading_once():
            read.read_checkpoint(weights)
        assert overrides.state_dict_of(weights)
    assert reads == {'weights.pth': 1}
