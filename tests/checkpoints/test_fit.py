"""Checkpoints that cannot be used are refused with a sentence before anything runs on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmseg.apis import init_model

from mmseg_ext.checkpoints.read import read_checkpoint
from mmseg_ext.config import prepare
from mmseg_ext.engine import launch
from mmseg_ext.errors import UserError
from mmseg_ext.inference.predictor import load_model
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


def test_resuming_without_a_part_is_refused(config: str) -> None:
    train(config, max_iters=1)
    path = 'work_dirs/tiny/iter_1.pth'
    whole = torch.load(path)
    for part in ('optimizer', 'param_schedulers', 'message_hub', 'meta'):
        torch.save({key: value for key, value in whole.items() if key != part}, path)
        sentence = f'iter_1.pth has no {part}.*: .* by --init .*iter_1.pth$'
        for run in (launch.train, launch.dry_run):
            with pytest.raises(UserError, match=sentence):
                run(prepare.prepare_training(config, resume='auto', max_iters=2))


def test_resuming_from_a_file_of_weights_is_refused(config: str) -> None:
    torch.save(init_model(config, device='cpu').state_dict(), 'x.pth')
    with pytest.raises(UserError, match='x.pth has no optimizer'):
        train(config, resume='x.pth', max_iters=2)


# Values


@pytest.fixture
def spoiled(config: str) -> Callable[[str, Any], str]:
    """Writes a checkpoint of the model with another value under a name, and returns its path."""

    def write(name: str, value: Any) -> str:
        state = init_model(config, device='cpu').state_dict()
        state[name] = value(state[name])
        torch.save(dict(state_dict=state), 'spoiled.pth')
        return 'spoiled.pth'

    return write


def score(config: str, checkpoint: str) -> None:
    launch.test(prepare.prepare_test(config, checkpoint))


def predict(config: str, checkpoint: str) -> None:
    load_model(Config.fromfile(config), checkpoint)


def start(config: str, checkpoint: str) -> None:
    train(config, init=checkpoint, max_iters=1)


@pytest.mark.parametrize('use', [score, predict, start])
@pytest.mark.parametrize(
    ('name', 'value', 'problem'),
    [
        ('decode_head.conv_seg.weight', lambda x: x * torch.nan, 'is not finite'),
        ('backbone.layer1.0.bn1.running_var', lambda x: x / 0, 'is not finite'),
        ('backbone.layer1.0.conv1.weight', lambda x: 3, 'is of type int and no tensor'),
        ('decode_head.conv_seg.bias', lambda x: x.tolist(), 'is of type list and no tensor'),
    ],
)
def test_values_that_cannot_be_used_are_refused(
    config: str, spoiled: Callable, use: Callable, name: str, value: Callable, problem: str
) -> None:
    with pytest.raises(UserError, match=f'spoiled.pth: {name} {problem}: give'):
        use(config, spoiled(name, value))


def test_a_file_with_changed_bytes_is_refused_or_reads_as_before(tmp_path: Path) -> None:
    path = tmp_path / 'x.pth'
    state = dict(weight=torch.arange(500.0), name=['a' * 50])
    torch.save(state, path)
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            loaded = read_checkpoint(str(path))
        except UserError as error:
            assert 'x.pth is damaged or no checkpoint' in str(error)
            refused += 1
        else:
            assert torch.equal(loaded['weight'], state['weight'])
            assert loaded['name'] == state['name']
    assert refused > 200
