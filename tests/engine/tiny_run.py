"""A tiny training in processes of its own, which a test may kill; from a warm fork server."""

import copy
import errno
import gc
import json
import multiprocessing
import os
import signal
import socket
from functools import reduce
from multiprocessing.process import BaseProcess
from operator import getitem
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

import mmseg_ext.engine  # noqa: F401
from mmseg_ext.checkpoints import write
from mmseg_ext.engine import ResumableRunner
from mmseg_ext.engine.distributed import leave_process_group

ROOT = Path(__file__).parents[2]
CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(
    ['mmseg_ext.engine', 'mmseg.apis', 'mmseg.visualization', 'matplotlib.pyplot', 'torch._dynamo']
)

KILLED = -9
SIGNALS = {
    'interrupt': signal.SIGINT,
    'interrupt twice': signal.SIGINT,
    'terminate': signal.SIGTERM,
    'terminate group': signal.SIGTERM,
    'hang_up': signal.SIGHUP,
}
EPOCHS: dict[str, Any] = {}
FINITE_ITERATIONS = {'train_cfg': dict(type='IterBasedTrainLoop', max_iters=13, val_interval=100)}
ITERATIONS = {**FINITE_ITERATIONS, 'train_dataloader.sampler.type': 'InfiniteSampler'}
LOOPS = {'epochs': EPOCHS, 'iterations': ITERATIONS, 'finite': FINITE_ITERATIONS}


CLASSES = ('left', 'right', 'noise')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(40, 40), ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(32, 32)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]


def write_images(folder: Path, number: int = 10) -> Path:
    rng = np.random.default_rng(0)
    for kind in ('images', 'labels'):
        (folder / kind).mkdir(parents=True)
    for i in range(number):
        image = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        label = np.full((40, 40), 2, np.uint8)
        label[:20, : 10 + i] = 0
        label[20:, i:] = 1
        cv2.imwrite(str(folder / 'images' / f'{i}.png'), image)
        cv2.imwrite(str(folder / 'labels' / f'{i}.png'), label)
    return folder


def config(data: Path, work_dir: Path, **changes: Any) -> Config:
    """Ten images, batches of 2: five iterations an epoch on one process."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/default_runtime.py')
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(data),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        img_suffix='.png',
        metainfo=dict(classes=CLASSES, palette=[[0, 0, 0]] * 3),
        pipeline=PIPELINE,
    )
    cfg.merge_from_dict(
        dict(
            work_dir=str(work_dir),
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32), seg_pad_val=255),
                backbone=dict(
                    type='ResNetV1c',
                    depth=18,
                    num_stages=2,
                    strides=(1, 2),
                    dilations=(1, 1),
                    out_indices=(0, 1),
                    stem_channels=4,
                    base_channels=4,
                    norm_cfg=dict(type='SyncBN', requires_grad=True),
                ),
                decode_head=dict(
                    type='FCNHead',
                    in_channels=8,
                    in_index=1,
                    channels=8,
                    num_convs=1,
                    num_classes=3,
                    dropout_ratio=0.5,
                    align_corners=False,
                ),
                train_cfg=dict(),
                test_cfg=dict(mode='whole'),
            ),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=True),
                dataset=dataset,
            ),
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=100),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9)
            ),
            param_scheduler=[dict(type='PolyLR', power=0.9, by_epoch=False, end=15)],
            custom_hooks=[dict(type='StopHook')],
            log_level='ERROR',
        )
    )
    cfg.default_hooks.checkpoint = dict(type='AtomicCheckpointHook', interval=2, by_epoch=False)
    cfg.default_hooks.logger.interval = 4
    for path, value in changes.items():
        *parents, key = path.split('.')
        reduce(getitem, parents, cfg)[key] = value
    return cfg


def with_validation(cfg: Config, interval: int) -> Config:
    cfg.val_dataloader = copy.deepcopy(cfg.train_dataloader)
    cfg.val_dataloader.sampler = dict(type='DefaultSampler', shuffle=False)
    cfg.val_dataloader.dataset.pipeline = [*PIPELINE[:2], PIPELINE[-1]]
    cfg.val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
    cfg.val_cfg = dict(type='ValLoop')
    cfg.train_cfg.val_interval = interval
    cfg.default_hooks.checkpoint.update(save_best='mIoU')
    return cfg


class StopHook(Hook):
    """Ends the process, as the options ask, at an iteration (from 1)."""

    priority = 'HIGHEST'
    fails = twice = False

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.rank != runner.cfg.get('stopped_rank', runner.rank):
            return
        asked = runner.cfg.get('stop', {}).get(runner.iter + 1)
        if asked == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        self.twice = asked == 'interrupt twice'
        if asked in SIGNALS:
            os.kill(os.getpid(), SIGNALS[asked])
        if asked == 'terminate group':
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGTERM)
        self._spoil(runner, asked)

    def _spoil(self, runner: Any, asked: str | None) -> None:
        """Makes the step, the hook or the file of this iteration fail."""
        if asked == 'forward':  # fails after the buffers have changed
            head = runner.model.decode_head

            def fail(*args: Any) -> None:
                raise RuntimeError('no memory')

            head.loss_by_feat = fail
        if asked == 'backward':  # fails after the whole forward pass

            def fail_backward(*args: Any, **kwargs: Any) -> None:
                raise RuntimeError('no memory')

            runner.optim_wrapper.backward = fail_backward
        self.fails = asked == 'hook'
        model = getattr(runner.model, 'module', runner.model)
        if asked == 'full_disk':
            write.os.fsync = fail_for_want_of_space
        if asked == 'nan':
            torch.nn.init.constant_(model.decode_head.conv_seg.weight, torch.nan)
        if asked == 'infinite statistics':
            model.backbone.layer1[0].bn1.running_var.fill_(torch.inf)
        if asked == 'infinite gradient':
            model.decode_head.conv_seg.bias.register_hook(lambda grad: grad * torch.inf)

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        if self.fails:
            raise RuntimeError('a hook failed')

    def before_save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        if self.twice:
            os.kill(os.getpid(), signal.SIGINT)


def fail_for_want_of_space(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def kill_in_write(number: int) -> None:
    """The process dies with half of its ``number``-th file written, from 1."""
    whole, done = write.os.fsync, []

    def fsync(descriptor: int) -> None:
        done.append(descriptor)
        if len(done) == number:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        whole(descriptor)

    write.os.fsync = fsync


def _train(cfg: dict, env: dict[str, str], report: str, write_to_die_in: int) -> None:
    from mmseg.registry import HOOKS

    os.environ.update(env)
    torch.set_num_threads(1)
    Config.pretty_text = property(lambda cfg: repr(cfg))  # formatting takes most of the time
    HOOKS.register_module(module=StopHook, force=True)
    if write_to_die_in:
        kill_in_write(write_to_die_in)
    in_vain = joins_in_vain()
    runner = ResumableRunner.from_cfg(Config(cfg))
    try:
        runner.train()
    except BaseException as error:
        Path(report).write_text(f'{type(error).__name__}: {error}')
        raise
    del runner
    leave_process_group()
    gc.collect()
    if in_vain:
        Path(report).write_text(f'waited in vain for {in_vain}')


def joins_in_vain() -> list[BaseProcess]:
    """The processes that this one waits for from now on, and that live on after the time limit."""
    in_vain, join = [], BaseProcess.join

    def recording(process: BaseProcess, timeout: float | None = None) -> None:
        join(process, timeout)
        if process.is_alive():
            in_vain.append(process)

    BaseProcess.join = recording
    return in_vain


def train(cfg: Config, *, processes: int = 1, write_to_die_in: int = 0) -> list[tuple[int, str]]:
    """Runs a config to its end, or whatever happens: exit code and error of each process."""
    work_dir = Path(cfg.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    reports = [work_dir / f'error_{rank}.txt' for rank in range(processes)]
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    cfg.launcher = 'pytorch' if processes > 1 else 'none'
    children = []
    for rank, report in enumerate(reports):
        report.unlink(missing_ok=True)
        env = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=processes, MASTER_PORT=port)
        env = {key: str(value) for key, value in env.items()} | {'MASTER_ADDR': 'localhost'}
        args = (cfg.to_dict(), env, str(report), write_to_die_in)
        children.append(CONTEXT.Process(target=_train, args=args))
        children[-1].start()
    for child in children:
        child.join(200)
        hangs = child.exitcode is None
        child.kill()
        assert not hangs, 'a process hangs'
    return [
        (child.exitcode, report.read_text() if report.exists() else '')
        for child, report in zip(children, reports, strict=True)
    ]


def last_checkpoint(work_dir: Path) -> dict:
    path = (work_dir / 'last_checkpoint').read_text()
    return torch.load(path, weights_only=False)


def logged(work_dir: Path) -> list[dict]:
    lines = [f.read_text().splitlines() for f in sorted(work_dir.glob('*/vis_data/scalars.json'))]
    return [json.loads(line) for file in lines for line in file]


def resumed(cfg: Config, **changes: Any) -> Config:
    cfg = Config(cfg.to_dict())
    cfg.merge_from_dict(dict(resume=True, **changes))
    cfg.stop = {}
    return cfg


def assert_same(a: dict, b: dict) -> None:
    assert a['meta']['iter'] == b['meta']['iter'] and a['meta']['epoch'] == b['meta']['epoch']
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_equal(a[key], b[key])


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), list(b.values())
    if isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
