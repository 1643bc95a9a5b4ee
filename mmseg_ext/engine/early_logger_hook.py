"""First log lines of a training, and a warning where its threads wait for each other."""

import time
from typing import Any

import torch
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

EARLY = (1, 5)  # iterations since a training started or resumed
STARVING = 3  # times that steps take longer than their CPU time; 1 is one busy thread


@HOOKS.register_module()
class EarlyLoggerHook(LoggerHook):
    """``LoggerHook`` that also logs the first and the fifth iteration of a training.

    They show early that a training runs, and how long it will take. On a CPU it warns at the fifth
    iteration when steps mostly wait, as they do where several trainings share too few cores.
    """

    def before_train(self, runner: Runner) -> None:
        self.first_iter = runner.iter
        self.wall = self.cpu = 0.0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.step_started = time.perf_counter(), time.process_time()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        number = runner.iter + 1 - self.first_iter
        if number <= EARLY[-1]:
            self._measure(runner, number)
        if number in EARLY and not self.every_n_inner_iters(batch_idx, self.interval):
            tag, line = runner.log_processor.get_log_after_iter(runner, batch_idx, 'train')
            runner.logger.info(line)
            runner.visualizer.add_scalars(tag, runner.iter + 1, self.json_log_path)

    def _measure(self, runner: Runner, number: int) -> None:
        """Adds the times of a step, the first left out, and warns at the last of ``EARLY``."""
        if number > 1:
            wall, cpu = self.step_started
            self.wall += time.perf_counter() - wall
            self.cpu += time.process_time() - cpu
        on_cpu = next(runner.model.parameters()).is_cpu
        if number == EARLY[-1] and on_cpu and self.wall > STARVING * self.cpu:
            runner.logger.warning(
                f'The steps take {self.wall / self.cpu:.0f} times their CPU time: threads wait for '
                f'a core. This process has {torch.get_num_threads()} threads; set OMP_NUM_THREADS '
                'so that all processes together have no more threads than the machine has cores.'
            )
