"""Checks of a config and of what a command line names, before a run."""

import inspect
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from torch.utils.data import DataLoader

from ..errors import UserError
from ..host import class_that_failed
from .overrides import starting_weights

PACKAGE = Path(__file__).parents[1]
# Beginnings of messages that say what to do; all others stay errors.
SENTENCES = ('Seed must be between 0 and', 'There are multiple evaluation results')


def check_device(device: str) -> None:
    """Refuses a device that PyTorch does not know or does not see."""
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise UserError(f'device {device!r} is unknown: give cpu, cuda or cuda:1') from error
    if parsed.type == 'cuda' and (parsed.index or 0) >= torch.cuda.device_count():
        raise UserError(f'PyTorch sees no device {device} here: --device cpu works everywhere')


def other_batch(cfg: Config, num_processes: int) -> str | None:
    """Warning that the learning rate is for another batch; None if it is not."""
    scaling = cfg.get('auto_scale_lr') or {}
    usual = scaling.get('base_batch_size')
    batch_size = cfg.train_dataloader.get('batch_size', 1)
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    if scaling.get('enable') or usual in (None, batch_size * num_processes * steps):
        return None
    factors = [f'{num_processes} x {batch_size}', *([f'{steps} steps'] if steps > 1 else [])]
    return (
        f'a batch has {batch_size * num_processes * steps} images ({" x ".join(factors)}), but the '
        f'learning rate is for {usual}: --auto-scale-lr scales it'
    )


def no_initial_weights(cfg: Config) -> str | None:
    """Warning that a training starts from random weights, unlike its recipe; None if it does not.

    ``initial_weights`` of a config describes the weights of the recipe that have no address.
    """
    weights = cfg.get('initial_weights')
    if not weights or cfg.get('resume') or starting_weights(cfg):
        return None
    return (
        f'the training starts from random weights, but the recipe starts from {weights}: give '
        'them by --init PATH, or --init none to start without'
    )


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
def translate_config_errors() -> Iterator[None]:
    """Turns errors of Python and PyTorch while a config is built or run into sentences.

    Raises:
        UserError: A class lacks an argument or refuses its arguments, a loss cannot be called as
            the head calls it, or feature maps are too small for BatchNorm.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        sentence = _sentence_of(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def _sentence_of(error: Exception) -> str | None:
    """The sentence of an error that the config causes; None for any other error."""
    message = ' '.join(str(error).split())
    built = class_that_failed(error)
    if match := re.search(r'(\w+)\.__init__\(\) missing .* arguments?: (.+)$', message):
        name = built.__name__ if built else match[1]  # the message has the base that asks for it
        missing = match[2].replace("'", '')
        return f'{name} needs {missing}: add it to its dict in the config'
    if match := re.search(r'(\w+)\.forward\(\) got an unexpected keyword argument', message):
        return f'{match[1]} cannot be called as the model does ({message}): use another type'
    if match := re.match(r'Expected more than 1 value per channel.*(\[.*\])', message):
        return (
            f'a map of {match[1]} (N, C, H, W) is too small for BatchNorm, which needs more than '
            'one value of each channel: take larger crops or batches'
        )
    if message.startswith(SENTENCES):
        return message
    if match := re.match(r'(.*) should be either all None or not None', message):
        return f'{match[1]} belong together: set all three of them, or all of them to None'
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if built is None and frame.filename == inspect.getsourcefile(DataLoader):
        built = DataLoader if frame.name == '__init__' else None
    if built is None or Path(frame.filename).is_relative_to(PACKAGE):
        return None  # an error while a model runs, or of this package
    reason = f'{type(error).__name__}: {message or frame.line}'
    return f'{built.__name__} cannot be built ({reason}): correct its dict in the config'
