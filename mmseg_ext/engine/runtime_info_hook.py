"""Losses that stay on the device until the log needs them."""

import math
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from mmseg_ext.errors import UserError

from ..checkpoints.finite import are_finite, first_not_finite, float_tensors
from ..layers.unwrapping import unwrap
from .early_logger_hook import EARLY

STATE = ''  # key, beside the losses of a step, of whether its weights are finite


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """``RuntimeInfoHook`` that waits for the device once in a logging interval, not in every step.

    It also waits at the iterations that ``EarlyLoggerHook`` logs. It keeps the losses and file
    names of the steps in between. All processes stop when one of them has had a loss, or a
    parameter or saved buffer of the model, that is not finite.

    Raises:
        UserError: A value is not finite; the message has the first such step and its files.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[int, list[str], dict[str, Tensor]]] = []

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.steps = []
        self.weights = list(float_tensors(unwrap(runner.model).state_dict()).values())
        logs = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self.interval = min(logs, default=1)
        self.first_iter = runner.iter

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        losses = {key: value.detach() for key, value in (outputs or {}).items()}
        losses[STATE] = are_finite(self.weights)
        self.steps.append((runner.iter + 1, image_paths(data_batch), losses))
        if (
            runner.iter + 1 - self.first_iter in EARLY
            or self.every_n_inner_iters(batch_idx, self.interval)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
            or self.is_last_train_iter(runner)
        ):
            self.read_losses(runner)

    def read_losses(self, runner: Runner) -> None:
        """Hands the steps since the last call to the log, and stops where one is not finite."""
        first_bad = None
        values = iter(_to_host([v for *_, losses in self.steps for v in losses.values()]))
        for step, paths, losses in self.steps:
            for key, value in zip(losses, values):  # noqa: B905 (the rest is of the next steps)
                if key != STATE:
                    runner.message_hub.update_scalar(f'train/{key}', value)
                if first_bad is None and (problem := _problem(runner, key, value)):
                    first_bad = step, key == STATE, problem, paths
        self.steps = []
        failures = [bad for bad in all_gather_object(first_bad) if bad is not None]
        if failures:
            step, _, problem, paths = min(failures)
            raise UserError(
                f'{problem} at iteration {step}, batch {", ".join(paths)}: look at these '
                'files, take larger crops or batches, or lower the learning rate, and resume from '
                'the last checkpoint'
            )


def _problem(runner: Runner, key: str, value: float) -> str | None:
    """Clause that names the value that is not finite, or None; ``value`` is that of ``key``."""
    if key == 'loss' and not math.isfinite(value):
        return f'the loss is {value}'
    if key == STATE and not value:
        name = first_not_finite(unwrap(runner.model).state_dict())
        return name and f'{name} is not finite'
    return None


def _to_host(values: list[Tensor]) -> list[float]:
    return torch.stack([v.float().reshape(()) for v in values]).tolist() if values else []


def image_paths(data_batch: Any) -> list[str]:
    """The image files of a batch, as far as its samples know them."""
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    return [str(sample.get('img_path')) for sample in samples]
