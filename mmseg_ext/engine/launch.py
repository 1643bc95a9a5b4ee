"""From a command line to a run: the config and the checks before it."""

import inspect
import os
import re
import resource
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import mmengine.registry
import mmseg.registry
import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dist import is_main_process
from mmengine.registry import Registry, init_default_scope
from mmengine.runner import EpochBasedTrainLoop, Runner, find_latest_checkpoint
from torch.utils.data import DataLoader

from mmseg_ext.datasets.checks import (
    SplitReport,
    check_splits,
    leaf_datasets,
    nested_dicts,
)
from mmseg_ext.evaluation.class_iou import markdown_table

from . import overrides
from .amp import set_amp
from .distributed import init_dist_for_cpu_or_gpu, leave_process_group
from .progress import live_progress
from .weights import check_weights, unwrap

SAMPLED_LABELS = 300  # read before training; tools/check_dataset.py reads all
TEST = '_test'  # in the name of the config that a test leaves in its work directory
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


class KeyValueAction(DictAction):
    """``DictAction`` that says which value it cannot read."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        for value in values:
            try:
                super().__call__(parser, namespace, [value], option_string)
            except (AssertionError, ValueError) as error:
                raise ValueError(
                    f'{option_string} {value}: give KEY=VALUE with brackets that close, for '
                    'example train_dataloader.batch_size=4'
                ) from error


def add_common_arguments(parser: ArgumentParser) -> None:
    """The arguments that training and testing share."""
    parser.add_argument('config', help='the config file')
    parser.add_argument('--work-dir', help='where results go; work_dirs/<paper>/<config>')
    parser.add_argument('--data-root', metavar='DIR', help='the folder of the data set')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValueAction,
        metavar='KEY=VALUE',
        help='change any key: model.backbone.depth=50 model.test_scales="(0.5,1.0)"',
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='what has started this process, one of several; dist_*.sh give it',
    )


def load_config(
    path: str,
    *,
    cfg_options: dict[str, Any] | None = None,
    data_root: str | None = None,
    work_dir: str | None = None,
    launcher: str = 'none',
) -> Config:
    """Reads a config and applies what every command can change.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, nothing reads one of ``cfg_options``, or a ``type`` is not
            registered.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'the config {path} does not exist: see the folder configs')
    try:
        cfg = Config.fromfile(path)
    except (OSError, SyntaxError) as error:
        raise ValueError(f'the config {path} cannot be read: {error}') from error
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    overrides.merge_options(cfg, cfg_options or {})
    if data_root is not None:
        overrides.set_data_root(cfg, data_root)
    cfg.work_dir = work_dir or cfg.get('work_dir') or default_work_dir(path)
    cfg.launcher = launcher
    check_types(cfg)
    return cfg


def default_work_dir(path: str | Path) -> str:
    """``work_dirs/<paper>/<name>`` of ``configs/<paper>/<name>.py``, else ``work_dirs/<name>``.

    Papers share names.
    """
    path = Path(path).resolve()
    paper = [path.parent.name] if path.parent.parent.name == 'configs' else []
    return str(Path('work_dirs', *paper, path.stem))


def prepare_training(
    path: str,
    *,
    resume: str | None = None,
    amp: str | None = None,
    seed: int | None = None,
    crop_size: Iterable[int] | None = None,
    max_iters: int | None = None,
    max_epochs: int | None = None,
    init: str = 'config',
    **common: Any,
) -> Config:
    """The config that a training command asks for.

    Args:
        path: of the config file.
        resume: ``auto`` for the latest checkpoint in the work directory, or a checkpoint; None
            keeps the config's ``resume``.
        amp: ``auto``, ``bf16`` or ``fp16``; None keeps the config's precision.
        seed: of all random numbers.
        crop_size: (h, w) in pixels.
        max_iters: length of training, for configs that count iterations.
        max_epochs: length of training, for configs that count epochs.
        init: starting weights: ``config``, ``none`` or a checkpoint file.
        **common: as in :func:`load_config`.
    """
    cfg = load_config(path, **common)
    if crop_size is not None:
        overrides.set_crop_size(cfg, tuple(crop_size))  # type: ignore[arg-type]
    if max_iters is not None or max_epochs is not None:
        overrides.set_training_length(cfg, max_iters=max_iters, max_epochs=max_epochs)
    if init != 'config':
        overrides.set_initial_weights(cfg, init)
    if amp is not None:
        set_amp(cfg, None if amp == 'auto' else amp)
    if seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}
    _set_resume(cfg, resume)
    return cfg


def _set_resume(cfg: Config, resume: str | None) -> None:
    if resume is not None and resume != 'auto':
        if not Path(resume).is_file():
            raise FileNotFoundError(
                f'--resume {resume}: no such file; --resume alone takes the latest in '
                f'{cfg.work_dir}'
            )
        cfg.resume, cfg.load_from = True, resume
    elif resume == 'auto' or (cfg.get('resume') and not cfg.get('load_from')):
        # The Runner would continue from `load_from`, the starting weights, if the config names any.
        latest = find_latest_checkpoint(cfg.work_dir)
        cfg.resume = latest is not None
        cfg.load_from = latest or cfg.get('load_from')
        if latest is None:
            print(f'nothing to resume in {cfg.work_dir}: training starts from the beginning')


def prepare_test(
    path: str,
    checkpoint: str,
    *,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2,
    tta: bool = False,
    **common: Any,
) -> Config:
    """The config that a test command asks for; the arguments are those of ``tools/test.py``."""
    cfg = load_config(path, **common)
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        raise FileNotFoundError(f'the checkpoint {checkpoint} does not exist')
    cfg.load_from, cfg.resume = checkpoint, False
    if show or show_dir:
        hook = cfg.setdefault('default_hooks', {}).setdefault('visualization', {})
        hook.update(type='SegVisualizationHook', draw=True, interval=1, show=show)
        hook['wait_time'] = wait_time
        cfg.setdefault('visualizer', dict(type='SegLocalVisualizer', name='visualizer'))
        if show_dir:
            cfg.visualizer['save_dir'] = show_dir
            cfg.visualizer.setdefault('vis_backends', [dict(type='LocalVisBackend')])
    if out:
        for evaluator in overrides.as_list(cfg.test_evaluator):
            evaluator['output_dir'] = out
    if tta:
        if not cfg.get('tta_model') or not cfg.get('tta_pipeline'):
            raise ValueError(f'--tta: {path} has no tta_model and tta_pipeline')
        for leaf in leaf_datasets(cfg.test_dataloader):
            leaf['pipeline'] = cfg.tta_pipeline
        cfg.model = {**cfg.tta_model, 'module': cfg.model}
    # The Runner dumps the config by this name, which must not replace that of the training.
    object.__setattr__(cfg, '_filename', str(Path(path).with_stem(Path(path).stem + TEST)))
    return cfg


def check_types(cfg: Config) -> None:
    """Refuses a ``type`` that no registry knows, with the nearest names.

    Raises:
        ValueError: such a type.
    """
    for section, value in overrides.what_is_read(cfg).items():
        registries = _registries(section)
        for path, node in nested_dicts(value, section):
            name = node.get('type')
            if not isinstance(name, str) or any(r.get(name) is not None for r in registries):
                continue
            known = sorted({known for r in registries for known in _names(r)})
            near = get_close_matches(name, known, n=3)
            advice = f'did you mean {" or ".join(near)}?' if near else 'see custom_imports'
            raise ValueError(f'{path}.type={name!r} is not registered: {advice}')


def _registries(section: str) -> list[Registry]:
    names = REGISTRIES.get(section)
    if section == 'default_hooks' or names is None:  # hooks may hold anything
        names = tuple({k for k, v in vars(mmengine.registry).items() if isinstance(v, Registry)})
    return [getattr(mmseg.registry, n, getattr(mmengine.registry, n)) for n in names]


def _names(registry: Registry | None) -> Iterator[str]:
    while registry is not None:
        yield from registry.module_dict
        registry = registry.parent


def check_data(
    cfg: Config, splits: Sequence[str], *, max_labels: int | None = SAMPLED_LABELS
) -> dict[str, SplitReport]:
    """Checks the data sets of a config, and its class counts, before a run.

    Raises:
        ValueError: the first problem found, and how many more there are.
    """
    reports = dict(check_splits(cfg, splits, max_labels=max_labels))
    for split, report in reports.items():
        for warning in report.warnings[:3]:
            print(f'warning: {split} data: {warning}')
        if report.problems:
            more = len(report.problems) - 1
            also = f' ({more} more: tools/check_dataset.py lists them)' if more else ''
            raise ValueError(f'{split} data: {report.problems[0]}{also}')
        print(f'{split} data: {report.images} images, {report.labels_read} labels read')
    return reports


def _peak_memory() -> float:
    """MiB, of tensors on the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def check_device(device: str) -> None:
    """Raises ValueError where PyTorch does not know or does not see a device."""
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'device {device!r} is unknown: give cpu, cuda or cuda:1') from error
    if asked.type == 'cuda' and (asked.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'PyTorch sees no device {device} here: --device cpu works everywhere')


def make_writable(folder: str | Path) -> None:
    """Makes a folder for results.

    Raises:
        ValueError: it cannot be made, or nothing can be written into it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f'results cannot be written to {folder} ({error.strerror or error}): '
            'name another folder'
        ) from error
    _check_writable(folder)


def _check_writable(folder: str | Path) -> None:
    """Refuses a folder for results without making it."""
    place = Path(folder).resolve()
    there = next(path for path in (place, *place.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = 'Permission denied' if there.is_dir() else f'{there} is no folder'
        raise ValueError(f'results cannot be written to {folder} ({reason}): name another folder')


@contextmanager
def wrong_settings(cfg: Config) -> Iterator[None]:
    """Names what to change in a config where a class of the host or PyTorch refuses a setting.

    Raises:
        ValueError: a key that the class does not take, or maps too small for BatchNorm.
    """
    try:
        yield
    except TypeError as error:
        found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword.*'(\w+)'", str(error))
        places = _places_of(cfg, found[2]) if found else []
        if found is None or not places:
            raise
        path, name, known, inside = places[0]
        near = get_close_matches(found[2], known) or inside[:3]
        advice = f'did you mean {" or ".join(near)}?' if near else 'remove it'
        raise ValueError(f'{path}: {name} does not take {found[2]}; {advice}') from error
    except ValueError as error:
        found = re.match(r'Expected more than 1 value per channel.*(\[.*\])', str(error))
        if found is None:
            raise
        raise ValueError(
            f'a map of {found[1]} (N, C, H, W) is too small for BatchNorm, which needs more than '
            'one value of each channel: take larger crops or batches'
        ) from error


def _places_of(cfg: Config, key: str) -> list[tuple[str, str, set[str], list[str]]]:
    """Where a config says ``key``, and of what does not take it: name, arguments, like keys inside.

    A head that wraps another one leaves most keys to that.
    """
    places = []
    for section, value in overrides.what_is_read(cfg).items():
        for path, node in nested_dicts(value, section):
            if key in node:
                classes = (r.get(str(node.get('type'))) for r in _registries(section))
                cls = next((c for c in classes if c is not None), DataLoader)
                parents = inspect.getmro(cls) if inspect.isclass(cls) else ()
                inits = (
                    inspect.signature(vars(p)['__init__']) for p in parents if '__init__' in vars(p)
                )
                known = {name for i in inits for name in i.parameters}
                if key not in known:
                    inside = [
                        f'{deeper}.{like}'
                        for deeper, inner in nested_dicts(node, path)
                        if inner is not node
                        for like in get_close_matches(key, inner)
                    ]
                    places.append((f'{path}.{key}', cls.__name__, known, inside))
    return places


def build_runner(cfg: Config) -> Runner:
    """The Runner that the config names, on as many processes as its launcher started."""
    make_writable(cfg.work_dir)
    init_dist_for_cpu_or_gpu(cfg, cfg.launcher)
    if 'runner_type' in cfg:
        return mmseg.registry.RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def train(cfg: Config) -> None:
    """Checks everything that can be checked before the first iteration, then trains."""
    with wrong_settings(cfg):
        _train(cfg)
    leave_process_group()


def _train(cfg: Config) -> None:
    _check_before_training(cfg)
    overrides.set_cache_dir(cfg, str(Path(cfg.work_dir).parent))
    runner = build_runner(cfg)
    check_weights(runner, cfg.get('load_from'), whole=bool(cfg.get('resume')))
    with live_progress(runner):
        runner.train()
    if is_main_process():
        print(_summary(runner, cfg))


def _check_before_training(cfg: Config) -> None:
    if not is_first_process():
        return
    check_data(cfg, ('train', 'val'))
    for source in overrides.starting_weights(cfg):
        overrides.state_dict_of(source)  # also puts what the network gives into the cache


def is_first_process() -> bool:
    """Before the processes know each other: the other ones wait for the first in the Runner."""
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
    """The latest best checkpoint of a training, else its latest one, else None."""
    best = sorted(Path(work_dir).glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    if best:
        return str(best[-1])
    left = Path(work_dir, 'last_checkpoint').is_file()
    return find_latest_checkpoint(str(work_dir)) if left else None


def dry_run(cfg: Config) -> None:
    """Makes all checks and takes one training and one validation batch; leaves no file behind."""
    _check_writable(cfg.work_dir)
    _check_before_training(cfg)
    with tempfile.TemporaryDirectory() as folder, wrong_settings(cfg):
        cfg.work_dir, cfg.log_level = folder, 'WARNING'
        overrides.set_cache_dir(cfg, folder)
        runner = build_runner(cfg)
        unwrap(runner.model).init_weights()
        check_weights(runner, cfg.get('load_from'), whole=bool(cfg.get('resume')))
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.optim_wrapper.initialize_count_status(runner.model, 0, runner.train_loop.max_iters)
        runner.model.train()
        batch = next(iter(runner.train_dataloader))
        loss = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)['loss']
        if not loss.isfinite():
            raise ValueError(f'the loss of the first batch is {loss.item()}')
        print(f'dry run: one training batch, loss {loss.item():.4f}')
        if cfg.get('val_dataloader'):
            runner.model.eval()
            batch = next(iter(runner.val_loop.dataloader))
            runner.val_evaluator.process(runner.model.val_step(batch), batch)
            print('dry run: one validation batch')
    print('dry run: nothing was written')


def test(cfg: Config) -> dict[str, float]:
    """Tests a checkpoint; the scores of the metrics, and that of the best constant prediction.

    The latter is measured on the labels as they are on disk. All scores are printed and written to
    ``table.md`` in the work directory.
    """
    with wrong_settings(cfg):
        metrics = _test(cfg)
    leave_process_group()
    return metrics


def _test(cfg: Config) -> dict[str, float]:
    reports = check_data(cfg, ('test',), max_labels=None) if is_first_process() else {}
    runner = build_runner(cfg)
    check_weights(runner, cfg.load_from, whole=True)
    metrics = runner.test()
    notes = [_what_was_tested(cfg)]
    for report in reports.values():
        if report.labels_read:
            name, metrics['constant_mIoU'] = report.constant_prediction()
            notes.append(f'constant_mIoU: that of predicting {name} everywhere.')
            print(f'best constant prediction ({name} everywhere): {metrics["constant_mIoU"]:.2f}')
    if is_first_process():
        batches = runner.message_hub.get_scalar('test/time').data[0]
        print(
            f'a batch: {np.median(batches):.3f} s (median); peak memory: {_peak_memory():.0f} MiB'
        )
        table = Path(cfg.work_dir) / 'table.md'
        table.write_text('\n'.join([markdown_table(metrics), *(f'- {note}' for note in notes), '']))
        print(f'scores: {table}')
    return metrics


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
