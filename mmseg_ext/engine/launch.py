"""Training, testing and the dry run of a config."""

import os
import resource
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mmseg.registry
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from rich.console import Console

from mmseg_ext.checkpoints import read
from mmseg_ext.checkpoints.class_rows import rows_table, take_rows_by_name
from mmseg_ext.checkpoints.fit import check_weights, require_class_order, require_resumable
from mmseg_ext.config import overrides
from mmseg_ext.config.walk import class_names_of, leaf_datasets
from mmseg_ext.datasets.checks import check_splits
from mmseg_ext.datasets.split_report import SplitReport
from mmseg_ext.evaluation.class_iou import markdown_table

from ..config.checks import (
    check_writable,
    make_writable,
    no_initial_weights,
    other_batch,
    translate_config_errors,
)
from ..config.overrides import starting_weights
from ..config.prepare import TEST
from ..errors import UserError
from ..layers.unwrapping import unwrap
from ..processes import keep_freed_memory
from ..segmentors.fast import make_fast
from ..segmentors.protocols import training_parts_of
from .checkpoint_hook import AtomicCheckpointHook
from .distributed import init_dist_for_cpu_or_gpu, leave_process_group
from .lock import only_training
from .progress import live_progress
from .validation_loss import ValidationLossHook

SAMPLED_LABELS = 300  # read before training; tools/check_dataset.py reads all


def check_data(
    cfg: Config, splits: Sequence[str], *, max_labels: int | None = SAMPLED_LABELS
) -> dict[str, SplitReport]:
    """Checks the data sets of a config, and its class counts, before a run.

    Raises:
        UserError: The data has a problem; the message has the first one and the number of others.
    """
    reports = dict(check_splits(cfg, splits, max_labels=max_labels))
    for split, report in reports.items():
        for warning in report.warnings[:3]:
            _warn(f'{split} data: {warning}')
        if report.problems:
            num_hidden = len(report.problems) - 1
            also = f' ({num_hidden} more: tools/check_dataset.py lists them)' if num_hidden else ''
            raise UserError(f'{split} data: {report.problems[0]}{also}')
        print(f'{split} data: {report.images} images, {report.labels_read} labels read')
    return reports


def _peak_memory() -> float:
    """Peak memory in MiB: of tensors on the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def build_runner(cfg: Config) -> Runner:
    """Builds the Runner that the config names, on all processes that the launcher started."""
    make_writable(cfg.work_dir)
    init_dist_for_cpu_or_gpu(cfg, cfg.launcher)
    build = mmseg.registry.RUNNERS.build if 'runner_type' in cfg else Runner.from_cfg
    runner = build(cfg)
    runner.register_hook(FreeCheckpointsHook())
    return runner


class FreeCheckpointsHook(Hook):
    """Frees the contents of checkpoints after the Runner has loaded its weights from them.

    Before that it removes the config of the training, which the host would run as Python.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        meta = checkpoint.get('meta') or {}
        checkpoint['meta'] = {key: value for key, value in meta.items() if key != 'config'}

    def before_train(self, runner: Runner) -> None:
        read.forget_checkpoints()

    def before_test(self, runner: Runner) -> None:
        read.forget_checkpoints()


def train(cfg: Config) -> None:
    """Checks everything that can be checked before the first iteration, then trains."""
    with translate_config_errors(), read.reading_once():
        _check_before_training(cfg)
        make_writable(cfg.work_dir)
        with only_training(cfg.work_dir) if is_first_process(cfg.launcher) else nullcontext():
            _train(cfg)
    leave_process_group()


def _train(cfg: Config) -> None:
    overrides.set_cache_dir(cfg, str(Path(cfg.work_dir).parent))
    if not torch.cuda.is_available():
        keep_freed_memory()
    runner = build_runner(cfg)
    _warn_of_another_recipe(cfg, runner)
    _take_rows_by_name(cfg, runner)
    check_weights(runner, cfg.get('load_from'), strict=bool(cfg.get('resume')))
    with live_progress(runner):
        runner.train()
    if is_main_process():
        print(_summary(runner, cfg))


def _warn(problem: str | None) -> None:
    if problem and is_first_process():
        print(f'warning: {problem}')


def _warn_of_another_recipe(cfg: Config, runner: Runner) -> None:
    _warn(no_initial_weights(cfg))
    _warn(other_batch(cfg, runner.world_size))


def _take_rows_by_name(cfg: Config, runner: Runner) -> None:
    if theirs := cfg.get('init_classes'):
        ours = class_names_of(cfg.train_dataloader)
        rows = take_rows_by_name(unwrap(runner.model), theirs, ours)
        if is_main_process():
            Console().print(rows_table(theirs, ours, rows))


def _check_before_training(cfg: Config) -> None:
    if not is_first_process(cfg.launcher):
        return
    if cfg.get('resume') and cfg.get('load_from'):
        require_resumable(cfg.load_from, has_schedule=bool(cfg.get('param_scheduler')))
    reports = check_data(cfg, ('train', 'val'))
    if cfg.get('resume') and cfg.get('load_from'):
        require_class_order(cfg.load_from, reports['train'].classes)
    for source in starting_weights(cfg):
        read.state_dict_of(source)  # an address is downloaded once, for all processes


def is_first_process(launcher: str | None = None) -> bool:
    """Whether the launcher numbers this process 0; works before the process group exists.

    Other processes wait for the first one when they build the Runner. A run with the launcher
    ``none`` is alone, whatever its environment says.

    Args:
        launcher: Launcher of the run; None trusts the environment.
    """
    if launcher == 'none':
        return True
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    return next((int(rank) for rank in ranks if rank is not None), 0) == 0


def _summary(runner: Runner, cfg: Config) -> str:
    lines = []
    if getattr(runner.train_loop, 'started', None) == runner.iter:
        unit = 'epochs' if isinstance(runner.train_loop, EpochBasedTrainLoop) else 'iters'
        length = getattr(runner, f'max_{unit}')
        lines.append(
            f'nothing was left to train: {cfg.load_from} has {runner.iter} iterations done, and '
            f'max_{unit}={length} asks for no more; --max-{unit} with a larger number trains longer'
        )
    lines.append(f'results in {cfg.work_dir}')
    scores = runner.message_hub.log_scalars.get('val/mIoU')
    if scores is not None:
        values = scores.data[0]
        lines.append(f'  validation mIoU: {values[-1]:.2f} at the end, best {max(values):.2f}')
    folder = Path(cfg.work_dir)
    checkpoint = best_checkpoint(folder)
    lines += [f'  {path}' for path in sorted(folder.glob('*.png'))]
    if checkpoint is not None:
        config = folder / Path(cfg.filename).name  # as trained, with what the command line changed
        lines.append(f'  test it: python tools/test.py {config} {checkpoint}')
    return '\n'.join(lines)


def best_checkpoint(work_dir: str | Path) -> str | None:
    """Latest best checkpoint of a training, else its latest checkpoint, else None."""
    best = sorted(Path(work_dir).glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    if best:
        return str(best[-1])
    return read.latest_checkpoint(work_dir)


def dry_run(cfg: Config) -> None:
    """Makes all checks and runs one training and one validation batch; leaves no file behind."""
    check_writable(cfg.work_dir)
    with (
        tempfile.TemporaryDirectory() as folder,
        read.reading_once(),
        translate_config_errors(),
    ):
        _check_before_training(cfg)
        cfg.work_dir, cfg.log_level = folder, 'WARNING'
        overrides.set_cache_dir(cfg, folder)
        runner = build_runner(cfg)
        _warn_of_another_recipe(cfg, runner)
        unwrap(runner.model).init_weights()
        _take_rows_by_name(cfg, runner)
        check_weights(runner, cfg.get('load_from'), strict=bool(cfg.get('resume')))
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.optim_wrapper.initialize_count_status(runner.model, 0, runner.train_loop.max_iters)
        if runner.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        hooks = [hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)]
        for hook in hooks:
            hook.before_train(runner)
        runner.model.train()
        batch = next(iter(runner.train_dataloader))
        loss = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)['loss']
        if not loss.isfinite():
            raise UserError(f'the loss of the first batch is {loss.item()}')
        print(f'dry run: one training batch, loss {loss.item():.4f}')
        if cfg.get('val_dataloader'):
            runner.model.eval()
            batch = next(iter(runner.val_loop.dataloader))
            outputs = runner.model.val_step(batch)
            runner.val_evaluator.process(outputs, batch)
            metrics = _scores_of_a_batch(runner, outputs, batch)
            for hook in hooks:
                hook.check_scores(metrics)
            print('dry run: one validation batch')
    print('dry run: nothing was written')


def _scores_of_a_batch(runner: Runner, outputs: list, batch: Any) -> dict[str, float]:
    """Scores of a validation, here of a single batch."""
    metrics = runner.val_evaluator.evaluate(len(outputs))
    for hook in runner.hooks:
        if isinstance(hook, ValidationLossHook):
            hook.before_val_epoch(runner)
            hook.after_val_iter(runner, 0, batch, outputs)
            hook.after_val_epoch(runner, metrics)
    return metrics


def run_test(
    cfg: Config,
    *,
    max_labels: int | None = SAMPLED_LABELS,
    before_test: Callable[[Runner], None] | None = None,
    compiled: bool = False,
) -> tuple[Runner, dict[str, float], dict[str, SplitReport]]:
    """Checks the data and the weights of a test, then runs it.

    Args:
        cfg: Config of ``prepare.prepare_test``.
        max_labels: Number of labels to read for the check; None reads all.
        before_test: Function called with the Runner before the test, when the model has its
            weights.
        compiled: Whether ``torch.compile`` compiles the network.

    Returns:
        The Runner, the scores, and the report of each split; other processes than the first have no
        report.
    """
    with translate_config_errors(), read.reading_once():
        reports = (
            check_data(cfg, ('test',), max_labels=max_labels)
            if is_first_process(cfg.launcher)
            else {}
        )
        for report in reports.values():
            require_class_order(cfg.load_from, report.classes)
        runner = build_runner(cfg)
        training_parts = training_parts_of(unwrap(runner.model))
        check_weights(runner, cfg.load_from, strict=True, not_needed=training_parts)
        runner.load_or_resume()  # the test would load into a model that is folded already
        if before_test is not None:
            before_test(runner)
        runner.model.eval()
        make_fast(unwrap(runner.model), compiled=compiled)
        return runner, runner.test(), reports


def test(cfg: Config, *, compiled: bool = False) -> dict[str, float]:
    """Tests a checkpoint, prints its scores and writes them to ``table.md`` in the work directory.

    The best constant prediction, one class for all pixels, is scored on the labels as they are on
    disk.

    Args:
        cfg: Config of ``prepare.prepare_test``.
        compiled: Whether ``torch.compile`` compiles the network.

    Returns:
        Scores of the metrics, and of the best constant prediction as ``constant_mIoU``.
    """
    runner, metrics, reports = run_test(cfg, max_labels=None, compiled=compiled)
    _report_test(cfg, runner, metrics, reports)
    leave_process_group()
    return metrics


def _report_test(
    cfg: Config, runner: Runner, metrics: dict[str, float], reports: dict[str, SplitReport]
) -> None:
    """Adds the best constant prediction to ``metrics``, prints a summary and writes the table."""
    notes = [_what_was_tested(cfg)]
    for report in reports.values():
        if report.labels_read:
            name, metrics['constant_mIoU'] = report.constant_prediction()
            notes.append(f'constant_mIoU: that of predicting {name} everywhere.')
            print(f'best constant prediction ({name} everywhere): {metrics["constant_mIoU"]:.2f}')
    if is_first_process(cfg.launcher):
        batches = runner.message_hub.get_scalar('test/time').data[0]
        print(
            f'time per batch: {np.median(batches):.3f} s (median); '
            f'peak memory: {_peak_memory():.0f} MiB'
        )
        if not metrics:  # no labels
            return
        table = Path(cfg.work_dir) / 'table.md'
        table.write_text('\n'.join([markdown_table(metrics), *(f'- {note}' for note in notes), '']))
        print(f'scores: {table}')


def _what_was_tested(cfg: Config) -> str:
    config = Path(cfg.filename)
    data = [
        f'{leaf["type"]} of '
        + str(Path(leaf.get('data_root') or '', leaf.get('data_prefix', {}).get('img_path') or ''))
        for leaf in leaf_datasets(cfg.test_dataloader)
    ]
    return (
        f'{cfg.load_from} with {config.with_stem(config.stem.removesuffix(TEST))} on '
        f'{", ".join(data)}; the config as tested is {config.name}.'
    )
