"""A live bar of the training, where there is a terminal to show it."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

SECONDS = 0.25  # between two looks of the bar


class ProgressHook(Hook):
    """Shows iterations, the time left, the loss and, while it lasts, the validation.

    The time left is estimated from the last thousand iterations with the validations between them.
    Each validation leaves a line with its scores, but for those of single classes.

    Args:
        console: Console to draw on.
    """

    priority = 'LOWEST'

    def __init__(self, console: Console) -> None:
        # Without a thread: data workers are forked, and a lock that it holds would stay locked.
        self.progress = Progress(
            '{task.description}',
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            '{task.fields[loss]}',
            console=console,
            auto_refresh=False,
            speed_estimate_period=float('inf'),
            redirect_stderr=sys.stderr.isatty(),
            expand=True,
        )
        self.shown = 0.0
        self.training = self.progress.add_task('preparing', total=None, loss='')

    def before_train(self, runner: Runner) -> None:
        progress = dict(total=runner.max_iters, completed=runner.iter)
        self.progress.reset(self.training, **progress, description=self._where(runner))
        self._show(at_once=True)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        loss = _text(loss=_loss(runner))
        self.progress.update(self.training, advance=1, description=self._where(runner), loss=loss)
        self._show()

    def before_val_epoch(self, runner: Runner) -> None:
        total = len(runner.val_dataloader)
        self.validation = self.progress.add_task('validation', total=total, loss='')
        self._show(at_once=True)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.progress.advance(self.validation)
        self._show()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.progress.remove_task(self.validation)
        scores = {k: v for k, v in (metrics or {}).items() if not k.startswith('IoU.')}
        line = _text(loss=_loss(runner), **scores)
        self.progress.console.print(f'{self._where(runner, done=True)}  {line}', highlight=False)
        self._show(at_once=True)

    def _where(self, runner: Runner, *, done: bool = False) -> str:
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            return f'epoch {min(runner.epoch + (not done), runner.max_epochs)}/{runner.max_epochs}'
        return f'iteration {runner.iter}' if done else 'training'

    def _show(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self.shown > SECONDS:
            with suppress(OSError):  # the terminal was closed: SIGHUP stops the training
                self.progress.refresh()
            self.shown = now


def _loss(runner: Runner) -> float | None:
    """The last that the log has; reading the newest one would wait for the device."""
    logged = runner.message_hub.log_scalars.get('train/loss')
    return None if logged is None else float(logged.mean(10))


def _text(**values: float | None) -> str:
    return '  '.join(f'{name} {value:.4g}' for name, value in values.items() if value is not None)


@contextmanager
def live_progress(runner: Runner) -> Iterator[None]:
    """Adds the bar to a training where stdout is a terminal; the log's lines are then in its file.

    Its warnings and errors still show above the bar, as does what is printed.
    """
    console = Console()
    if not (is_main_process() and console.is_interactive):
        yield
        return
    hook = ProgressHook(console)
    runner.register_hook(hook)
    handlers = [h for h in runner.logger.handlers if type(h) is logging.StreamHandler]
    before = [(handler, handler.stream, handler.level) for handler in handlers]
    with hook.progress:
        console.print(f'the log is in {runner.log_dir}', highlight=False, soft_wrap=True)
        try:
            for handler in handlers:
                handler.setStream(sys.stdout)  # the bar's, which writes above it
                handler.setLevel(max(handler.level, logging.WARNING))
            yield
        finally:
            for handler, stream, level in before:
                handler.setStream(stream)
                handler.setLevel(level)
