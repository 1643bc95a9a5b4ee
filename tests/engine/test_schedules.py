"""Learning rates over a whole training, as the papers' codes have them."""

import copy
import functools
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import PARAM_SCHEDULERS

from mmseg_ext.config.overrides import set_training_length
from tests.tiny import CONFIG_DIR, CONFIGS

EPOCH_LENGTH = 3


@functools.cache
def _parsed(path: Path) -> Config:
    return Config.fromfile(path)


def read(path: Path) -> Config:
    """Config of a file that a test may change; each file is parsed once."""
    return copy.deepcopy(_parsed(path))


@functools.cache
def rates_of(schedule: str, steps: int, *, by_epoch: bool) -> tuple[float, ...]:
    """Rate of every iteration, with a base of 1; an epoch has three iterations."""
    init_default_scope('mmseg')
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    optimizer.step()
    default = dict(optimizer=optimizer, epoch_length=EPOCH_LENGTH)
    schedulers = [PARAM_SCHEDULERS.build(s, default_args=default) for s in json.loads(schedule)]
    rates = []
    for iteration in range(1, steps * (EPOCH_LENGTH if by_epoch else 1) + 1):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            if not scheduler.by_epoch or (by_epoch and iteration % EPOCH_LENGTH == 0):
                scheduler.step()
    return tuple(rates)


def rates(cfg: Config) -> tuple[float, ...]:
    by_epoch = 'max_epochs' in cfg.train_cfg
    steps = cfg.train_cfg['max_epochs' if by_epoch else 'max_iters']
    schedule = json.dumps([dict(s) for s in cfg.param_scheduler])
    return rates_of(schedule, steps, by_epoch=by_epoch)


def shortened(path: Path, steps: int | None) -> Config:
    cfg = read(path)
    if steps:
        key = 'max_epochs' if 'max_epochs' in cfg.train_cfg else 'max_iters'
        set_training_length(cfg, **{key: steps})
    return cfg


@pytest.mark.parametrize('steps', [None, 1, 2, 7])
@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_no_step_of_a_training_has_a_rate_of_zero(path: Path, steps: int | None) -> None:
    assert min(rates(shortened(path, steps))) > 0


RELEASED = {  # steps in the released code's unit, and its power; from the sheets of the papers
    'hmsa/hrnet_ocr_cityscapes': (175, 2.0),
    'hmsa/hrnet_ocr_mapillary': (200, 1.0),
    'gscnn/wrn38_cityscapes': (175, 1.0),
    'danet/r101_cityscapes': (240 * EPOCH_LENGTH, 0.9),
    'fastfcn/r50_jpu_encnet_ade20k': (120 * EPOCH_LENGTH, 0.9),
    'spnet/r101_cityscapes': (180 * EPOCH_LENGTH, 0.9),
    'magnet/r50_fpn_deepglobe_plain': (484 * EPOCH_LENGTH, 0.9),
    'hanet/r101_deeplabv3plus_cityscapes': (40000, 0.9),
    'pixel_contrast/hrnet_cityscapes': (40000, 0.9),
}


@pytest.mark.parametrize(('name', 'steps', 'power'), [(k, *v) for k, v in RELEASED.items()])
def test_the_rates_are_those_of_the_released_code(name: str, steps: int, power: float) -> None:
    drawn = rates(shortened(CONFIG_DIR / f'{name}.py', None))
    length = len(drawn) // steps
    expected = [(1 - i // length / steps) ** power for i in range(len(drawn))]
    assert drawn == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize('key', ['max_epochs', 'max_iters'])
def test_a_shorter_training_has_the_rates_of_its_own_length(key: str) -> None:
    name = dict(max_epochs='hmsa/hrnet_ocr_cityscapes', max_iters='pixel_contrast/hrnet_cityscapes')
    drawn = rates(shortened(CONFIG_DIR / f'{name[key]}.py', 4))
    if key == 'max_epochs':
        assert drawn == pytest.approx([(1 - e / 4) ** 2 for e in range(4) for _ in range(3)])
    else:
        assert drawn == pytest.approx([(1 - e / 4) ** 0.9 for e in range(4)])


def test_steps_of_a_very_short_training_come_after_its_first_epoch() -> None:
    drawn = rates(shortened(CONFIG_DIR / 'magnet/r50_fpn_deepglobe.py', 2))
    assert drawn[:EPOCH_LENGTH] == (1.0,) * EPOCH_LENGTH and drawn[-1] < 1
