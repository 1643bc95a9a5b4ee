"""Checks of a config and of what a command line names, before a run."""

import inspect
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

import mmengine.registry
import mmseg.registry
import torch
from mmengine.config import Config
from mmengine.registry import Registry
from torch.utils.data import DataLoader

from ..errors import UserError
from .walk import nested_dicts, what_is_read

REGISTRIES = {
    'model': ('MODELS', 'WEIGHT_INITIALIZERS', 'TASK_UTILS'),
    'train_dataloader': ('DATASETS', 'DATA_SAMPLERS', 'TRANSFORMS', 'FUNCTIONS'),
    'val_dataloader': ('DATASETS', 'DATA_SAMPLERS', 'TRANSFORMS', 'FUNCTIONS'),
    'test_dataloader': ('DATASETS', 'DATA_SAMPLERS', 'TRANSFORMS', 'FUNCTIONS'),
    'optim_wrapper': ('OPTIM_WRAPPERS', 'OPTIMIZERS'),
    'param_scheduler': ('PARAM_SCHEDULERS',),
    'train_cfg': ('LOOPS',),
    'default_hooks': ('HOOKS',),
    'val_evaluator': ('METRICS', 'EVALUATOR'),
    'test_evaluator': ('METRICS', 'EVALUATOR'),
}


def check_types(cfg: Config) -> None:
    """Refuses a ``type`` that is in no registry.

    Raises:
        UserError: A type is not registered; the message has the most similar names.
    """
    for section, value in what_is_read(cfg).items():
        registries = _registries(section)
        for path, node in nested_dicts(value, section):
            name = node.get('type')
            if not isinstance(name, str) or any(r.get(name) is not None for r in registries):
                continue
            registered = sorted({entry for r in registries for entry in _names(r)})
            suggestions = get_close_matches(name, registered, n=3)
            advice = (
                f'did you mean {" or ".join(suggestions)}?' if suggestions else 'see custom_imports'
            )
            raise UserError(f'{path}.type={name!r} is not registered: {advice}')


def _registries(section: str) -> list[Registry]:
    names = REGISTRIES.get(section)
    if section == 'default_hooks' or names is None:  # hooks may hold anything
        names = tuple({k for k, v in vars(mmengine.registry).items() if isinstance(v, Registry)})
    return [getattr(mmseg.registry, n, getattr(mmengine.registry, n)) for n in names]


def _names(registry: Registry | None) -> Iterator[str]:
    while registry is not None:
        yield from registry.module_dict
        registry = registry.parent


def check_device(device: str) -> None:
    """Refuses a device that PyTorch does not know or does not see."""
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise UserError(f'device {device!r} is unknown: give cpu, cuda or cuda:1') from error
    if parsed.type == 'cuda' and (parsed.index or 0) >= torch.cuda.device_count():
        raise UserError(f'PyTorch sees no device {device} here: --device cpu works everywhere')


def make_writable(folder: str | Path) -> None:
    """Makes a folder for results.

    Raises:
        UserError: The folder cannot be made or is not writable.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'results cannot be written to {folder} ({error.strerror or error}): '
            'name another folder'
        ) from error
    check_writable(folder)


def check_writable(folder: str | Path) -> None:
    """Refuses a folder that cannot be made or written to; makes no folder."""
    target = Path(folder).resolve()
    nearest = next(path for path in (target, *target.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = 'Permission denied' if nearest.is_dir() else f'{nearest} is no folder'
        raise UserError(f'results cannot be written to {folder} ({reason}): name another folder')


@contextmanager
def translate_config_errors(cfg: Config) -> Iterator[None]:
    """Turns errors of the host and of PyTorch into sentences about the config.

    Raises:
        UserError: A class does not take a key, or feature maps are too small for BatchNorm.
    """
    try:
        yield
    except TypeError as error:
        match = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword.*'(\w+)'", str(error))
        locations = _locations_of(cfg, match[2]) if match else []
        if match is None or not locations:
            raise
        path, name, accepted, inside = locations[0]
        suggestions = get_close_matches(match[2], accepted) or inside[:3]
        meant = ' or '.join(suggestions)
        advice = f'did you mean {meant}?' if meant else 'remove it'
        raise UserError(f'{path}: {name} does not take {match[2]}; {advice}') from error
    except ValueError as error:
        match = re.match(r'Expected more than 1 value per channel.*(\[.*\])', str(error))
        if match is None:
            raise
        raise UserError(
            f'a map of {match[1]} (N, C, H, W) is too small for BatchNorm, which needs more than '
            'one value of each channel: take larger crops or batches'
        ) from error


def _locations_of(cfg: Config, key: str) -> list[tuple[str, str, set[str], list[str]]]:
    """Places of ``key`` in a config where its class does not accept it.

    A head that wraps another head passes most keys on to it.

    Returns:
        For each: dotted path, name of the class, arguments that it accepts, similar keys inside.
    """
    locations = []
    for section, value in what_is_read(cfg).items():
        for path, node in nested_dicts(value, section):
            if key in node:
                classes = (r.get(str(node.get('type'))) for r in _registries(section))
                cls = next((c for c in classes if c is not None), DataLoader)
                parents = inspect.getmro(cls) if inspect.isclass(cls) else ()
                inits = (
                    inspect.signature(vars(p)['__init__']) for p in parents if '__init__' in vars(p)
                )
                accepted = {name for i in inits for name in i.parameters}
                if key not in accepted:
                    inside = [
                        f'{deeper}.{like}'
                        for deeper, inner in nested_dicts(node, path)
                        if inner is not node
                        for like in get_close_matches(key, inner)
                    ]
                    locations.append((f'{path}.{key}', cls.__name__, accepted, inside))
    return locations
