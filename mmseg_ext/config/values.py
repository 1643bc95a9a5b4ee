"""Values of a config that no run can use, found before it is built."""

from importlib.util import find_spec
from math import inf
from pathlib import Path
from types import FunctionType
from typing import Any

from mmengine.config import Config
from mmseg.registry import RUNNERS

from ..errors import UserError
from .walk import as_list, nested_dicts, what_is_read

# Smallest values of numbers, by the last key of their path.
COUNTS = {
    'accumulative_counts': 1,
    'batch_size': 1,
    'max_epochs': 1,
    'max_iters': 1,
    'num_classes': 1,
    'num_workers': 0,
    'seed': 0,
    'times': 1,
    'val_interval': 1,
}
AMOUNTS = {'lr': 0, 'weight_decay': 0}
SWITCHES = ('drop_last', 'persistent_workers', 'pin_memory', 'resume', 'sync_buffer', 'tta')
WITH_WORKERS = {'persistent_workers': False, 'prefetch_factor': None}
IOU_METRICS = ('mIoU', 'mDice', 'mFscore')
# Packages that a backend of the visualizer needs.
PACKAGES = {
    'AimVisBackend': 'aim',
    'ClearMLVisBackend': 'clearml',
    'DVCLiveVisBackend': 'dvclive',
    'MLflowVisBackend': 'mlflow',
    'NeptuneVisBackend': 'neptune',
    'TensorboardVisBackend': 'tensorboard',
    'WandbVisBackend': 'wandb',
}
SECTIONS = ('model', 'optim_wrapper', 'train_cfg', 'default_hooks', 'env_cfg', 'randomness')


def check_sections(cfg: Config) -> None:
    """Refuses sections that are no dict, another scope and an unknown Runner.

    Raises:
        UserError: A section of the config cannot be used.
    """
    for key in SECTIONS:
        value = cfg.get(key)
        if value is not None and not isinstance(value, dict):
            raise UserError(f'{key}={value!r}: expected a dict, as in the configs of this package')
    hooks = cfg.get('custom_hooks')
    if hooks is not None and not (
        isinstance(hooks, list) and all(isinstance(h, dict) for h in hooks)
    ):
        raise UserError('custom_hooks is no list of dicts: write custom_hooks=[dict(type=...)]')
    if not isinstance(cfg.get('model'), dict):
        raise UserError(f'{cfg.filename} has no model: add model=dict(type=...) or a _base_ of it')
    if cfg.default_scope != 'mmseg':
        raise UserError(
            f"default_scope={cfg.default_scope!r}: set default_scope='mmseg', where the models of "
            'this package are registered'
        )
    name = cfg.get('runner_type')
    if name is not None and RUNNERS.get(name) is None:
        raise UserError(f'runner_type={name!r} is not registered: set runner_type=ResumableRunner')


def check_values(cfg: Config) -> None:
    """Refuses numbers, switches and parts of a model that no run can use.

    A dataloader without workers loses the settings of workers, which PyTorch refuses.

    Raises:
        UserError: A value is impossible.
    """
    for path, node in nested_dicts(what_is_read(cfg)):
        for key, value in node.items():
            dotted = f'{path}.{key}' if path else key
            _check_number(dotted, key, value)
            _check_items(dotted, key, value)
            if key in SWITCHES and not isinstance(value, bool | None):
                raise UserError(f'{dotted}={value!r}: give True or False')
            if key in ('backbone', 'decode_head') and not isinstance(value, dict | list | tuple):
                raise UserError(f'{dotted}={value!r}: a model needs its dict(type=...)')
        if path.endswith('_dataloader') and not node.get('num_workers'):
            node.update({key: unset for key, unset in WITH_WORKERS.items() if node.get(key)})
        check_class_names(f'{path}.metainfo.classes', (node.get('metainfo') or {}).get('classes'))
        package = PACKAGES.get(str(node.get('type')))
        if package is not None and find_spec(package) is None:
            raise UserError(
                f'{path}.type={node["type"]} needs a package: pip install {package}, or remove it'
            )
    _check_samplers(cfg)
    _check_schedules(cfg)
    for name, hook in (cfg.get('default_hooks') or {}).items():
        if isinstance(hook, dict) and 'type' not in hook:
            raise UserError(f'default_hooks.{name} has no type: name a hook, or correct {name}')


def _check_items(path: str, key: str, value: Any) -> None:
    """Refuses unknown metrics, and functions, which a written config cannot hold."""
    for item in as_list(value):
        if isinstance(item, FunctionType):
            raise UserError(f'{path} is the function {item.__name__}: register it, name it as type')
        if key == 'iou_metrics' and item not in IOU_METRICS:
            raise UserError(f'{path}={value!r}: choose from {", ".join(IOU_METRICS)}')


def _check_samplers(cfg: Config) -> None:
    """Refuses samplers without an end where the data set is read once."""
    for split in ('val', 'test'):
        sampler = (cfg.get(f'{split}_dataloader') or {}).get('sampler') or {}
        if sampler.get('type') == 'InfiniteSampler':
            raise UserError(
                f'{split}_dataloader.sampler.type=InfiniteSampler never ends: set '
                "dict(type='DefaultSampler', shuffle=False)"
            )


def _check_schedules(cfg: Config) -> None:
    """Refuses schedules that count epochs in a training that counts iterations."""
    loop = cfg.get('train_cfg') or {}
    if loop.get('type') != 'IterBasedTrainLoop' and loop.get('by_epoch', True):
        return
    for path, node in nested_dicts(cfg.get('param_scheduler'), 'param_scheduler'):
        counts_epochs = node.get('by_epoch', True) and not node.get('convert_to_iter_based')
        if 'type' in node and counts_epochs:
            raise UserError(
                f'{path} ({node["type"]}) counts epochs, but the training counts iterations: set '
                'by_epoch=False, and give begin and end in iterations'
            )


def check_class_names(source: str, classes: Any) -> None:
    """Refuses a text for a list, and equal names, whose scores could not be told apart.

    Args:
        source: Place of the names, for the message.
        classes: Names; values of another type are left to other checks.

    Raises:
        UserError: The names are a text that is no file, or two names are equal.
    """
    if isinstance(classes, str) and not Path(classes).is_file():
        raise UserError(f'{source}={classes!r}: give a list of names')
    names = list(classes) if isinstance(classes, list | tuple) else []
    equal = sorted({str(name) for name in names if names.count(name) > 1})
    if equal:
        raise UserError(f'{source} has {equal[0]} twice: give different names')


def _check_number(path: str, key: str, value: Any) -> None:
    lowest = COUNTS.get(key, AMOUNTS.get(key))
    if lowest is None or value is None:
        return
    kinds = (int,) if key in COUNTS else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not lowest <= value < inf:
        number = 'a whole number' if key in COUNTS else 'a number'
        raise UserError(f'{path}={value!r}: give {number} of at least {lowest}')


def check_kind(option: str, before: Any, value: Any) -> None:
    """Refuses an option of ``--cfg-options`` whose value cannot replace the present one.

    Args:
        option: Dotted key.
        before: Present value of the config.
        value: Value of the command line.

    Raises:
        UserError: A text replaces a number or a switch, or a single value replaces a dict.
    """
    if isinstance(before, int | float) and isinstance(value, str):
        kind = 'True or False' if isinstance(before, bool) else 'a number'
        raise UserError(f'--cfg-options {option}={value}: give {kind}, such as {before}')
    if isinstance(before, dict) and isinstance(value, str | int | float):
        raise UserError(
            f'--cfg-options {option}={value}: {option} is a dict, so change one of its keys, such '
            f'as {option}.{next(iter(before), "type")}'
        )
