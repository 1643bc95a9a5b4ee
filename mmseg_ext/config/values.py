"""Values of a config that no run can use, found before it is built."""

from importlib.util import find_spec
from math import inf
from typing import Any

from mmengine.config import Config
from mmseg.registry import RUNNERS

from ..errors import UserError
from .walk import nested_dicts, what_is_read

# Smallest values of numbers, by the last key of their path.
COUNTS = {
    'accumulative_counts': 1,
    'batch_size': 1,
    'max_epochs': 1,
    'max_iters': 1,
    'num_workers': 0,
    'val_interval': 1,
}
AMOUNTS = {'lr': 0, 'weight_decay': 0}
SWITCHES = ('drop_last', 'persistent_workers', 'pin_memory', 'resume', 'sync_buffer')
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

    A dataloader without workers has none to keep: its ``persistent_workers`` becomes False.

    Raises:
        UserError: A value is impossible.
    """
    for path, node in nested_dicts(what_is_read(cfg)):
        for key, value in node.items():
            dotted = f'{path}.{key}' if path else key
            _check_number(dotted, key, value)
            if key in SWITCHES and not isinstance(value, bool | None):
                raise UserError(f'{dotted}={value!r}: give True or False')
            if key in ('backbone', 'decode_head') and not isinstance(value, dict | list | tuple):
                raise UserError(f'{dotted}={value!r}: a model needs its dict(type=...)')
        if node.get('persistent_workers') and not node.get('num_workers'):
            node['persistent_workers'] = False
        check_class_names(f'{path}.metainfo.classes', (node.get('metainfo') or {}).get('classes'))
        package = PACKAGES.get(str(node.get('type')))
        if package is not None and find_spec(package) is None:
            raise UserError(
                f'{path}.type={node["type"]} needs a package: pip install {package}, or remove it'
            )
    for name, hook in (cfg.get('default_hooks') or {}).items():
        if isinstance(hook, dict) and 'type' not in hook:
            raise UserError(f'default_hooks.{name} has no type: name a hook, or correct {name}')


def check_class_names(source: str, classes: Any) -> None:
    """Refuses equal names of classes, whose scores and pixels could not be told apart.

    Args:
        source: Place of the names, for the message.
        classes: Names; values of another type are left to other checks.

    Raises:
        UserError: Two names are equal.
    """
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
