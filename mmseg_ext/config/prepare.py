"""From the arguments of a command to the config of its run."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from os.path import expanduser
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from mmseg_ext.checkpoints.read import latest_checkpoint
from mmseg_ext.config import walk
from mmseg_ext.host import set_config_filename

from ..errors import UserError
from . import overrides
from .amp import set_amp
from .checks import check_writable
from .keys import check_keys, check_types
from .paper import drop_inherited_score
from .reading import read_config
from .task import has_tasks, set_task
from .values import check_sections, check_values
from .walk import leaf_datasets

TEST = '_test'  # in the name of the config that a test leaves in its work directory


class KeyValueAction(DictAction):
    """``DictAction`` whose error names the value that it cannot read."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        for value in values:
            try:
                super().__call__(parser, namespace, [value], option_string)
            except (AssertionError, ValueError) as error:
                raise UserError(
                    f'{option_string} {value}: give KEY=VALUE with brackets that close, for '
                    'example train_dataloader.batch_size=4'
                ) from error


def add_common_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments that training and testing share."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', type=expanduser, help='folder for results (work_dirs/<paper>/<config>)'
    )
    parser.add_argument(
        '--data-root', type=expanduser, metavar='DIR', help='folder of the data set'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValueAction,
        metavar='KEY=VALUE',
        help='change keys of the config: model.backbone.depth=50 model.test_scales="(0.5,1.0)"',
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='program that starts several processes; dist_train.sh and dist_test.sh set it',
    )


def load_config(
    path: str,
    *,
    cfg_options: dict[str, Any] | None = None,
    data_root: str | None = None,
    work_dir: str | None = None,
    launcher: str = 'none',
) -> Config:
    """Reads a config and applies the options that every command has.

    Raises:
        UserError: The file does not exist or cannot be read, nothing reads one of its keys or of
            ``cfg_options``, a ``type`` is not registered, or a value is impossible.
    """
    cfg = read_config(path)
    drop_inherited_score(cfg, path)
    cfg.setdefault('default_scope', 'mmseg')
    init_default_scope('mmseg')
    overrides.merge_options(cfg, cfg_options or {})
    check_sections(cfg)
    if data_root is not None:
        overrides.set_data_root(cfg, data_root)
    cfg.work_dir = work_dir or cfg.get('work_dir') or default_work_dir(path)
    cfg.launcher = launcher
    check_types(cfg)
    overrides.explain_unreadable_images(cfg)
    check_keys(cfg)
    check_values(cfg)
    return cfg


def default_work_dir(path: str | Path) -> str:
    """``work_dirs/<paper>/<name>`` for ``configs/<paper>/<name>.py``, else ``work_dirs/<name>``.

    The folder of the paper is needed because papers use the same names for configs.
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
    init_classes: Iterable[str] | None = None,
    auto_scale_lr: bool = False,
    channels_last: bool = False,
    **common: Any,
) -> Config:
    """Config of a training command.

    Args:
        path: Path of the config file.
        resume: ``auto`` for the latest checkpoint in the work directory, or a checkpoint; None
            keeps the config's ``resume``.
        amp: ``auto``, ``bf16`` or ``fp16``; None keeps the config's precision.
        seed: Seed of all random numbers.
        crop_size: (h, w) in pixels.
        max_iters: Length of training, for configs that count iterations.
        max_epochs: Length of training, for configs that count epochs.
        init: Starting weights: ``config``, ``none``, a checkpoint file or ``package://NAME``.
        init_classes: Classes of the starting weights, as for ``class_rows.class_names``; None loads
            the classifier only if it fits.
        auto_scale_lr: Whether the learning rate follows the batch of all processes.
        channels_last: Whether the channels of a pixel lie together in memory; False keeps the
            config's ``channels_last``.
        **common: Arguments of ``load_config``.
    """
    if init != 'config' and resume not in (None, 'auto'):
        raise UserError(
            f'--resume {resume} and --init {init} name two starts: give only one of them'
        )
    cfg = load_config(path, **common)
    if crop_size is not None:
        overrides.set_crop_size(cfg, tuple(crop_size))  # type: ignore[arg-type]
        overrides.merge_options(cfg, common.get('cfg_options') or {})  # these are exact
    if max_iters is not None or max_epochs is not None:
        overrides.set_training_length(cfg, max_iters=max_iters, max_epochs=max_epochs)
    if init != 'config':
        overrides.set_initial_weights(cfg, init)
    if init_classes is not None:
        overrides.set_initial_classes(cfg, list(init_classes))
    if auto_scale_lr:
        overrides.scale_learning_rate(cfg)
    _set_computing(cfg, amp, seed, channels_last)
    _set_resume(cfg, resume)
    if cfg.get('resume'):
        cfg.pop('init_classes', None)  # its checkpoint has the classes of the data
    return cfg


def _set_computing(cfg: Config, amp: str | None, seed: int | None, channels_last: bool) -> None:
    if channels_last:
        cfg.channels_last = True
    if amp is not None:
        set_amp(cfg, None if amp == 'auto' else amp)
    if seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}


def _set_resume(cfg: Config, resume: str | None) -> None:
    if resume is not None and resume != 'auto':
        if not Path(resume).is_file():
            raise UserError(
                f'--resume {resume}: no such file; --resume alone takes the latest in '
                f'{cfg.work_dir}'
            )
        cfg.resume, cfg.load_from = True, resume
    elif resume == 'auto' or (cfg.get('resume') and not cfg.get('load_from')):
        # The Runner would continue from `load_from`, the starting weights, if the config names any.
        latest = latest_checkpoint(cfg.work_dir)
        if latest is not None and not Path(latest).is_file():
            raise UserError(
                f'{latest}, which {cfg.work_dir}/last_checkpoint names, does not exist: give '
                'another checkpoint by --resume PATH'
            )
        cfg.resume = latest is not None
        cfg.load_from = latest or cfg.get('load_from')
        if latest is None:
            print(f'nothing to resume in {cfg.work_dir}: training starts from the beginning')


def _check_outputs(out: str | None, show_dir: str | None, show: bool) -> None:
    """Refuses folders that cannot be written to, and a window without a display."""
    for folder in filter(None, (out, show_dir)):
        check_writable(folder)
    if show and sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & set(os.environ):
        raise UserError('--show: there is no display here: write pictures by --show-dir DIR')


def _augment(cfg: Config, path: str) -> None:
    """Sets the test-time augmentation of a config."""
    if not cfg.get('tta_model') or not cfg.get('tta_pipeline'):
        raise UserError(f'--tta: {path} has no tta_model and tta_pipeline')
    for leaf in leaf_datasets(cfg.test_dataloader):
        leaf['pipeline'] = cfg.tta_pipeline
    cfg.model = {**cfg.tta_model, 'module': cfg.model}


def prepare_test(
    path: str,
    checkpoint: str,
    *,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2,
    tta: bool = False,
    task: str | None = None,
    **common: Any,
) -> Config:
    """Config of a test command; the arguments are those of ``tools/test.py``."""
    cfg = load_config(path, **common)
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        raise UserError(f'the checkpoint {checkpoint} does not exist')
    cfg.load_from, cfg.resume = checkpoint, False
    _check_outputs(out, show_dir, show)
    if show or show_dir:
        hook = cfg.setdefault('default_hooks', {}).setdefault('visualization', {})
        hook.update(type='SegVisualizationHook', draw=True, interval=1, show=show)
        hook['wait_time'] = wait_time
        cfg.setdefault('visualizer', dict(type='SegmentsVisualizer', name='visualizer'))
        if show_dir:
            backend = dict(type='LocalVisBackend', save_dir=show_dir, img_save_dir='.')
            cfg.visualizer['vis_backends'] = [backend]
    if out:
        for evaluator in walk.as_list(cfg.test_evaluator):
            evaluator['output_dir'] = out
    tta = cfg.pop('tta', False) or tta  # the config that a test leaves is augmented already
    if tta and task not in (None, 'semantic'):
        raise UserError(f'--tta averages scores of classes, not the results of {task}: omit --tta')
    if task is not None or (tta and has_tasks(cfg)):
        set_task(cfg, task or 'semantic')
    if tta:
        _augment(cfg, path)
    # The Runner dumps the config by this name, which must not replace that of the training.
    set_config_filename(cfg, str(Path(path).with_stem(Path(path).stem + TEST)))
    return cfg
