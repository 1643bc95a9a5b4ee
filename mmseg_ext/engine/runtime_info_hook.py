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


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """``RuntimeInfoHook`` that waits for the device once in a logging interval, not in every step.

    It keeps the losses and file names of the steps in between. All processes stop when one of them
    has had a loss that is not finite.

    Raises:
        FloatingPointError: with the first such step and its files.
    """

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.steps: list[tuple[int, list[str], dict[str, Tensor]]] = []
        logs = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self.interval = min(logs, default=1)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        losses = {key: value.detach() for key, value in (outputs or {}).items()}
        self.steps.append((runner.iter + 1, image_paths(data_batch), losses))
        if (
            self.every_n_inner_iters(batch_idx, self.interval)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
            or self.is_last_train_iter(runner)
        ):
            self.read_losses(runner)

    def read_losses(self, runner: Runner) -> None:
        """Hands the steps since the last call to the log, and stops where a loss is not finite."""
        first_bad = None
        values = iter(_to_host([v for *_, losses in self.steps for v in losses.values()]))
        for step, paths, losses in self.steps:
            for key, value in zip(losses, values):  # noqa: B905 (the rest is of the next steps)
                runner.message_hub.update_scalar(f'train/{key}', value)
                if key == 'loss' and not math.isfinite(value) and first_bad is None:
                    first_bad = step, value, paths
        self.steps = []
        failures = [bad for bad in all_gather_object(first_bad) if bad is not None]
        if failures:
            step, value, paths = min(failures, key=lambda bad: bad[0])
            raise UserError(
                f'the loss is {value} at iteration {step}, batch {", ".join(paths)}: look at these '
                'files, take larger crops or batches, or lower the learning rate, and resume from '
                'the last checkpoint'
            )


def _to_host(values: list[Tensor]) -> list[float]:
    return torch.stack([v.float().reshape(()) for v in values]).tolist() if values else []


def image_paths(data_batch: Any) -> list[str]:
    """The image files of a batch, as far as its samples know them."""
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    return [str(sample.get('img_path')) for sample in samples]
