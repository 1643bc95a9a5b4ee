"""Settings of the optimizer of a training that resumes: those of the config hold."""

from typing import Any

from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

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


def check_saved_optimizer(filename: str, wrapper: Any, saved: dict[str, Any]) -> None:
    """Refuses the state of another kind of optimizer, or of other groups of parameters.

    Args:
        filename: Checkpoint, for the message.
        wrapper: Optimizer of this training.
        saved: Its state in the checkpoint.

    Raises:
        UserError: The state does not fit.
    """
    several = isinstance(wrapper, OptimWrapperDict)
    pairs = [(w, saved.get(k, {})) for k, w in wrapper.items()] if several else [(wrapper, saved)]
    for single, state in pairs:
        new, old = single.optimizer.state_dict()['param_groups'], state.get('param_groups', [])
        kinds = [{frozenset(_kind(group)) for group in groups} for groups in (new, old)]
        if len(new) != len(old) or kinds[0] != kinds[1]:
            raise UserError(
                f'{filename} comes from a training with another optimizer than '
                f'{type(single.optimizer).__name__} and the paramwise_cfg of this config: take '
                f'those of that training, or start anew from its weights by --init {filename}'
            )


def _kind(group: dict[str, Any]) -> set[str]:
    return {key for key in group if not key.startswith('initial_')}


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
