"""The optimizer of a training: what it prints, and what holds when a training resumes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor
from torch.optim import Optimizer

from ..checkpoints.finite import first_not_finite
from ..errors import UserError

Settings = list[dict[str, Any]]


def settings_of(wrapper: Any) -> Settings:
    """Learning rate, weight decay and other settings of each group of parameters."""
    return [
        {key: value for key, value in group.items() if key != 'params'}
        for group in _groups(wrapper)
    ]


def _groups(wrapper: Any) -> list[dict[str, Any]]:
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [group for single in wrappers for group in single.param_groups]


def keep_settings(runner: Runner, settings: Settings) -> bool:
    """Sets the optimizer's settings to those of the config where the checkpoint has others.

    A setting that a schedule changes is compared by its value at the start.

    Args:
        runner: Runner whose optimizer took its state from a checkpoint.
        settings: Settings before, of the config.

    Returns:
        Whether a schedule has to start from another value.
    """
    changed: dict[str, str] = {}
    for group, new in zip(_groups(runner.optim_wrapper), settings, strict=True):
        for key, value in new.items():
            if f'initial_{key}' not in new and group.get(key, value) != value:
                changed[key.removeprefix('initial_')] = f'{group[key]} -> {value}'
                group[key] = value
    for name, values in changed.items():
        runner.logger.warning(
            f'{name} differs from that of the checkpoint and replaces it: {values}'
        )
    return any(f'initial_{name}' in new for name in changed for new in settings)


def require_same_optimizer(
    checkpoint: str, optim_wrapper: OptimWrapper | OptimWrapperDict, saved: dict[str, Any]
) -> None:
    """Refuses a checkpoint whose optimizer cannot go on.

    Args:
        checkpoint: Path or address, for the message.
        optim_wrapper: Optimizer of the run.
        saved: Value of ``optimizer`` in the checkpoint.

    Raises:
        UserError: The optimizer is of another type, has other parameters or is not finite.
    """
    several = isinstance(optim_wrapper, OptimWrapperDict)
    wrappers = dict(optim_wrapper.items()) if several else {'': optim_wrapper}
    states = saved if several else {'': saved}
    problem: str | None = 'has other optimizers than the config'
    if wrappers.keys() == states.keys():
        pairs = ((wrapper.optimizer, states[name]) for name, wrapper in wrappers.items())
        problem = next(filter(None, (_problem(*pair) for pair in pairs)), None)
    if problem:
        raise UserError(
            f'{checkpoint} {problem}: resume with the config of its training, or start anew from '
            f'its weights by --init {checkpoint}'
        )


def _problem(optimizer: Optimizer, saved: Any) -> str | None:
    groups, state = (saved.get(key) for key in ('param_groups', 'state'))
    if not isinstance(state, dict) or _lengths(groups) != _lengths(optimizer.param_groups):
        return 'has an optimizer of other parameters than the model'
    ours, theirs = optimizer.param_groups[0].keys(), groups[0].keys()
    # A version of PyTorch may add an option, but only another optimizer adds and lacks options.
    if optimizer.defaults.keys() - theirs and theirs - ours - {'initial_lr'}:
        return f'has an optimizer of another type than {type(optimizer).__name__}'
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    numbers = [number for group in groups for number in group['params']]
    for parameter, number in zip(parameters, numbers, strict=True):
        values = state.get(number, {})
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        if any(x.dim() == parameter.dim() and x.shape != parameter.shape for x in tensors.values()):
            return 'has an optimizer for parameters of other shapes'
        if name := first_not_finite(tensors):
            return f'has an optimizer whose {name} is not finite'
    return None


def _lengths(groups: Any) -> list[int]:
    """Number of parameters of each group; none where the groups are of another form."""
    groups = groups if isinstance(groups, list) else []
    return [len(group['params']) for group in groups if isinstance(group, dict)]


@contextmanager
def options_only_in_the_file(logger: logging.Logger) -> Iterator[None]:
    """Does not print the host's hundreds of lines with the options of each parameter."""

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith('paramwise_options')

    printing = [h for h in logger.handlers if not isinstance(h, logging.FileHandler)]
    for handler in printing:
        handler.addFilter(is_other)
    try:
        yield
    finally:
        for handler in printing:
            handler.removeFilter(is_other)
