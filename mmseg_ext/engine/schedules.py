"""Schedules: a decay that lasts to the end of a training, and those of a resumed training."""

import warnings
from typing import Any

from mmengine.optim import PolyLR, _ParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmseg.registry import PARAM_SCHEDULERS

# Attributes of a scheduler that change in every step; all others are its schedule.
PROGRESS = {'last_step', '_global_step', '_last_value', 'base_values', 'verbose'}


@PARAM_SCHEDULERS.register_module()
class PolyLRToEnd(PolyLR):
    """Polynomial decay of released codes: the rate of step t of T is ``base * (1 - t / T)**power``.

    The host's ``PolyLR`` divides by T - 1, so that its last step, which may be an epoch, trains at
    a rate of ``eta_min``.

    Args:
        *args: Optimizer, the first argument of ``PolyLR``.
        begin: Step at which the decay starts.
        end: Step after the last step.
        **kwargs: Other arguments of ``PolyLR``.
    """

    def __init__(self, *args: Any, begin: int = 0, end: int, **kwargs: Any) -> None:
        super().__init__(*args, begin=begin, end=end, **kwargs)
        self.total_iters = end - begin


def resume_schedules(runner: Runner, saved: Any) -> None:
    """Sets the schedulers, and the values that they control, to those of the runner's iteration.

    Schedulers like those of the checkpoint take their state from it. If the config has another
    schedule, such as that of a longer training, it is followed from the first iteration.

    Args:
        runner: Runner with a resumed optimizer and with schedulers as built at the start.
        saved: Value of ``param_schedulers`` in the checkpoint; None follows the schedule of the
            config in any case.
    """
    new, old = _in_order(runner.param_schedulers), _in_order(saved or [])
    if len(new) == len(old) and all(map(_is_same, new, old)):
        for scheduler, state in zip(new, old, strict=True):
            scheduler.load_state_dict({**state, 'begin': scheduler.begin, 'end': scheduler.end})
        return
    runner.logger.warning('the schedule differs from that of the checkpoint and replaces it')
    for scheduler in new:
        for group in scheduler.optimizer.param_groups:
            group[scheduler.param_name] = group[f'initial_{scheduler.param_name}']
    runner.param_schedulers = runner.build_param_scheduler(runner.cfg.param_scheduler)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # the optimizer did its steps before
        _follow(runner, _in_order(runner.param_schedulers))


def _in_order(schedulers: Any) -> list[Any]:
    """Schedulers, or their states, of all optimizers in a list."""
    lists = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
    return [scheduler for group in lists for scheduler in group]


def _is_same(scheduler: _ParamScheduler, state: dict[str, Any]) -> bool:
    if not isinstance(state, dict):
        return False
    if getattr(scheduler, 'need_val_args', False):  # it follows the scores and not a schedule
        return True
    new = scheduler.state_dict()
    return new.keys() == state.keys() and all(new[k] == state[k] for k in new.keys() - PROGRESS)


def _follow(runner: Runner, schedulers: list[_ParamScheduler]) -> None:
    """Steps new schedulers as the training up to the runner's iteration would have done."""
    counts_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    epoch_length = len(runner.train_dataloader) if counts_epochs else runner.iter + 1
    for done in range(1, runner.iter + 1):
        ends_epoch = done % epoch_length == 0 and done // epoch_length <= runner.epoch
        for scheduler in schedulers:
            if not scheduler.by_epoch or ends_epoch:
                scheduler.step()
