"""The operations in which a model spends its time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch.profiler import ProfilerActivity, profile

from mmseg_ext.benchmark.measuring import in_fresh_process, machine
from mmseg_ext.benchmark.model_benchmark import Setting, check_modes, make_step, runs_of, what_runs
from mmseg_ext.config.checks import check_device


@dataclass(frozen=True)
class Operation:
    """An operation of PyTorch in a step of a model.

    Args:
        name: Name of the operation, such as 'aten::mkldnn_convolution'.
        share: Its time without that of the operations it calls, as a part of the whole step.
        calls: Number of calls.
    """

    name: str
    share: float
    calls: int


def profile_models(
    paths: Sequence[str],
    *,
    modes: Sequence[str],
    batch: int,
    size: Sequence[int] | None = None,
    device: str = 'cpu',
    count: int = 10,
) -> list[tuple[str, Setting, list[Operation]]]:
    """Profiles a step of each model, phase and mode, each in a fresh process.

    Args:
        paths: Config files.
        modes: Names of ``model_benchmark.MODES``; '+' joins several.
        batch: Batch size.
        size: Size (h, w) in pixels; by default ``crop_size`` of each config.
        device: Device, 'cpu' or 'cuda'.
        count: Number of operations, those with the most time first.

    Raises:
        UserError: A mode is unknown, the device does not exist, or a config has no size.
    """
    check_modes(modes)
    check_device(device)
    configs = [what_runs(path, size) for path in paths]
    results = []
    for path, (cfg, own_size) in zip(paths, configs, strict=True):
        for phase, mode in runs_of(modes):
            setting = Setting(phase, mode, batch, own_size, device)
            operations = in_fresh_process(_profile, cfg, setting)
            results.append((path, setting, operations[:count]))
    return results


def _profile(cfg: dict, setting: Setting) -> list[Operation]:
    step = make_step(cfg, setting)
    activities = [ProfilerActivity.CPU]
    if on_gpu := setting.device != 'cpu':
        activities.append(ProfilerActivity.CUDA)
    for _ in range(2):  # warms up
        step()
    with profile(activities=activities) as profiler:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    key = 'self_device_time_total' if on_gpu else 'self_cpu_time_total'
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    total = sum(getattr(event, key) for event in events)
    return [Operation(event.key, getattr(event, key) / total, event.count) for event in events]


def profile_tables(results: Sequence[tuple[str, Setting, list[Operation]]], device: str) -> Group:
    """A table for each profile."""
    parts: list[Text | Table] = [Text(machine(device))]
    for path, setting, operations in results:
        h, w = setting.size
        what = f'{path}, {setting.phase}, {setting.batch} of {h}x{w}, {setting.mode}'
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column('operation')
        for head in ('time', 'calls'):
            table.add_column(head, justify='right')
        for one in operations:
            table.add_row(one.name, f'{one.share:.1%}', str(one.calls))
        parts += [Text(what), table]
    return Group(*parts)
