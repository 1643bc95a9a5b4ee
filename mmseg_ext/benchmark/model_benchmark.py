"""Speed and memory of models in training and inference, against a reference in the same run."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from mmseg_ext.benchmark.host_model import host_model
from mmseg_ext.benchmark.measuring import (
    in_fresh_process,
    interleaved_medians,
    machine,
    peak_rise,
    ratio,
)
from mmseg_ext.benchmark.model_costs import trace_operations
from mmseg_ext.checkpoints.write import write_atomically
from mmseg_ext.config import overrides
from mmseg_ext.config.checks import check_device
from mmseg_ext.config.prepare import load_config
from mmseg_ext.errors import UserError
from mmseg_ext.layers.folding import fold_batch_norm

PHASES = ('training', 'inference')
MODES = ('fp32', 'bf16', 'channels_last', 'folded', 'compile')
HOST = 'host'
BLOCK = 32  # pixels, side of the squares of one class in random labels


@dataclass(frozen=True)
class Setting:
    """Conditions under which both models run.

    Args:
        phase: Phase: 'training' (a step with the config's losses and optimiser) or 'inference'
            (from images to classes).
        mode: Names of ``MODES`` joined by '+'; float32 without 'bf16'.
        batch: Number of images in a batch.
        size: Size of an image in pixels, (h, w).
        device: Device, 'cpu' or 'cuda'.
    """

    phase: str
    mode: str
    batch: int
    size: tuple[int, int]
    device: str


@dataclass(frozen=True)
class Measurement:
    """Time and memory of a model in a setting; pairs are (the model, the reference).

    Args:
        config: Config of the model.
        against: Config of the reference, or 'host'.
        setting: Conditions of both runs.
        seconds: Median times per image.
        eager_seconds: Median time per image of the model in float32 without any mode, in turn with
            ``seconds``; None if that is the setting itself.
        multiply_adds: Multiplications with addition per image, of convolutions, matrix products and
            attention; in training also those of the backward pass.
        peak_bytes: Largest memory until the end of the first step, with weights and optimiser;
            None if it cannot be measured, as with a compiler on a CPU.
        error: Reason for missing numbers.
    """

    config: str
    against: str
    setting: Setting
    seconds: tuple[float, ...] | None = None
    eager_seconds: float | None = None
    multiply_adds: tuple[int, ...] | None = None
    peak_bytes: tuple[int | None, ...] = (None, None)
    error: str = ''


def runs_of(modes: Sequence[str]) -> list[tuple[str, str]]:
    """Phase and mode of each measurement of a model; folded models do not train."""
    runs = product(PHASES, modes)
    return [(p, m) for p, m in runs if not (p == 'training' and 'folded' in m.split('+'))]


def check_modes(modes: Sequence[str]) -> None:
    """Raises UserError if a mode is not a combination of ``MODES``."""
    for mode in modes:
        if unknown := [name for name in mode.split('+') if name not in MODES]:
            raise UserError(
                f'--modes {mode}: {unknown[0]!r} is none of {", ".join(MODES)}; join several by +'
            )


def benchmark(
    paths: Sequence[str],
    *,
    against: Sequence[str] = (HOST,),
    modes: Sequence[str] = MODES,
    batches: Sequence[int] = (2,),
    size: Sequence[int] | None = None,
    device: str = 'cpu',
    repeats: int = 5,
) -> Iterator[Measurement]:
    """Measures models on random images, one setting after the other, in fresh processes.

    Args:
        paths: Config files.
        against: Configs of the references; 'host' is the host's nearest model (``host_model``).
        modes: Names of ``MODES``; '+' joins several.
        batches: Batch sizes.
        size: Size (h, w) in pixels; by default ``crop_size`` of each config.
        device: Device, 'cpu' or 'cuda'.
        repeats: Number of timed steps of each model; the models run in turn.

    Raises:
        UserError: A mode is unknown, the device does not exist, or a config has no size.
    """
    check_modes(modes)
    check_device(device)
    names = list(product(paths, against))
    pairs = [_pair(*name, size) for name in names]  # finds errors before the first measurement
    for (path, reference), (cfgs, own_size) in zip(names, pairs, strict=True):
        for (phase, mode), batch in product(runs_of(modes), batches):
            setting = Setting(phase, mode, batch, own_size, device)
            yield _measure(path, reference, cfgs, setting, repeats)


def _pair(path: str, against: str, size: Sequence[int] | None) -> tuple[list[dict], Any]:
    cfg, own_size = what_runs(path, size)
    if against != HOST:
        return [cfg, what_runs(against, own_size)[0]], own_size
    reference = load_config(path)
    reference.model = host_model(reference.model.to_dict())
    return [cfg, _without_start(reference)], own_size


def what_runs(path: str, size: Sequence[int] | None) -> tuple[dict[str, Any], tuple[int, int]]:
    """Model and optimiser of a config, with random weights, and the size (h, w) of its images.

    Raises:
        UserError: Neither the config nor ``size`` gives a size.
    """
    cfg = load_config(path)
    size = size or cfg.get('crop_size')
    if size is None:
        raise UserError(f'{path} names no crop_size: give --size H W')
    return _without_start(cfg), (size[0], size[1])


def _without_start(cfg: Config) -> dict[str, Any]:
    """Configs of model and optimiser, without starting weights and padding."""
    overrides.set_initial_weights(cfg, 'none')
    for key in ('size', 'size_divisor'):
        cfg.model.data_preprocessor.pop(key, None)
    cfg.model.data_preprocessor.size_divisor = 1
    return dict(model=cfg.model.to_dict(), optim_wrapper=cfg.optim_wrapper.to_dict())


def _measure(
    path: str, against: str, cfgs: list[dict], setting: Setting, repeats: int
) -> Measurement:
    peaks: list[int | None] = []
    try:
        for cfg in cfgs:
            peaks.append(in_fresh_process(_measure_peak, cfg, setting))
        seconds = in_fresh_process(_measure_time, cfgs, setting, repeats)
        counts = in_fresh_process(_count, cfgs, setting)
    except Exception as error:  # any error: the table names it, and the next setting runs
        who = (f'{path}: ', f'{against}: ', '')[len(peaks)]
        line = (str(error).strip().splitlines() or [''])[0]
        return Measurement(path, against, setting, error=f'{who}{type(error).__name__}: {line}')
    eager = seconds[2] if len(seconds) > 2 else None
    return Measurement(path, against, setting, seconds[:2], eager, counts, tuple(peaks))


def _measure_peak(cfg: dict, setting: Setting) -> int | None:
    if setting.device == 'cpu' and 'compile' in setting.mode:
        return None
    return peak_rise(lambda: make_step(cfg, setting)(), setting.device)


def _measure_time(cfgs: list[dict], setting: Setting, repeats: int) -> tuple[float, ...]:
    torch.backends.cudnn.benchmark = True  # as in training
    steps = [make_step(cfg, setting) for cfg in cfgs]
    if setting.mode != 'fp32':
        steps.append(make_step(cfgs[0], replace(setting, mode='fp32')))
    for step in steps * 2:  # warms up
        step()
    seconds = interleaved_medians(steps, setting.device, repeats)
    return tuple(time / setting.batch for time in seconds)


def _count(cfgs: list[dict], setting: Setting) -> tuple[int, ...]:
    steps = [make_step(cfg, replace(setting, mode='fp32')) for cfg in cfgs]
    return tuple(trace_operations(step).flops // 2 // setting.batch for step in steps)


def make_step(cfg: dict[str, Any], setting: Setting) -> Callable[[], Any]:
    """Function that runs the model of a config once, each time on the same random images.

    Args:
        cfg: Config with ``model`` and ``optim_wrapper``.
        setting: Conditions of the run.
    """
    init_default_scope('mmseg')
    torch.manual_seed(0)
    mode = setting.mode.split('+')
    model: Any = revert_sync_batchnorm(MODELS.build(ConfigDict(cfg['model']))).to(setting.device)
    if 'channels_last' in mode:
        model.to(memory_format=torch.channels_last)
    batch = _random_batch(model.num_classes, setting)
    if setting.phase == 'inference':
        model.eval()

        @torch.no_grad()
        def predict() -> Any:
            with torch.autocast(setting.device, torch.bfloat16, enabled='bf16' in mode):
                return model.test_step(batch)

        if 'folded' in mode:
            fold_batch_norm(model, predict)
        _compile(model, mode)
        return predict
    _compile(model, mode)
    wrapper = {k: v for k, v in cfg['optim_wrapper'].items() if k not in ('loss_scale', 'dtype')}
    wrapper['type'] = 'Bf16OptimWrapper' if 'bf16' in mode else 'OptimWrapper'
    MMLogger.get_current_instance().setLevel('WARNING')  # without a line for each parameter
    optim_wrapper = build_optim_wrapper(model.train(), wrapper)
    return lambda: model.train_step(batch, optim_wrapper)


def _compile(model: Any, mode: Sequence[str]) -> None:
    if 'compile' in mode:
        model.forward = torch.compile(model.forward)  # as the host does


def _random_batch(num_classes: int, setting: Setting) -> dict[str, Any]:
    """Batch on the device: images (3, h, w), uint8, and labels (1, h, w) of random squares."""
    h, w = setting.size
    meta = dict(img_shape=(h, w), ori_shape=(h, w), pad_shape=(h, w))
    images, samples = [], []
    for _ in range(setting.batch):
        image = torch.randint(256, (3, h, w), dtype=torch.uint8)
        blocks = torch.randint(num_classes, (1, h // BLOCK + 1, w // BLOCK + 1))
        label = blocks.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, :h, :w]
        images.append(image.to(setting.device))
        sample = SegDataSample(gt_sem_seg=PixelData(data=label.contiguous()), metainfo=meta)
        samples.append(sample.to(setting.device))
    return dict(inputs=images, data_samples=samples)


def results_table(results: Sequence[Measurement], device: str) -> Group:
    """Table with a row per setting, and the reasons of failures below it."""
    table = Table(title=machine(device), box=box.SIMPLE_HEAD, title_justify='left')
    for head in ('model\nagainst', '\nphase', '\nimages', '\nmode'):
        table.add_column(head)
    for head in ('time of an image\nmodel', '\nother', '\nratio', 'to fp32\nratio'):
        table.add_column(head, justify='right')
    table.add_column('multiply-adds\nratio', justify='right')
    for head in ('peak memory\nmodel', '\nother', '\nratio'):
        table.add_column(head, justify='right')
    names, notes = '', []
    for r in results:
        s = r.setting
        before, names = names, f'{_short(r.config)}\n{_short(r.against)}'
        images = f'{s.batch} of {s.size[0]}x{s.size[1]}'
        row = ['' if names == before else names, s.phase, images, s.mode]
        if r.seconds is None:
            row.append('failed')
            notes.append(Text(f'{s.phase}, {images}, {s.mode}: {r.error}'))
        else:
            row += [*(f'{t * 1e3:.1f} ms' for t in r.seconds), ratio(*r.seconds)]
            row.append(ratio(r.seconds[0], r.eager_seconds) if r.eager_seconds else '')
            row.append(ratio(*r.multiply_adds) if r.multiply_adds else '')
            row += ['n/a' if b is None else f'{b / 2**20:.0f} MiB' for b in r.peak_bytes]
            row.append(ratio(*r.peak_bytes))
        table.add_row(*row)
    return Group(table, *notes)


def _short(path: str) -> str:
    return f'{Path(path).parent.name}/{Path(path).stem}' if path.endswith('.py') else path


def write_results(path: str | Path, results: Sequence[Measurement], device: str) -> None:
    """Writes all numbers and the machine's name as JSON."""
    content = dict(machine=machine(device), results=[asdict(result) for result in results])
    write_atomically(json.dumps(content, indent=1).encode(), path)
