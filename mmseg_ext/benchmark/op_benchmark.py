"""Fast operations against their released forms: time, peak memory and difference in one run.

An operation is measured if a module in ``tests/oracles`` or ``tests/papers`` lists an
``OpBenchmark`` of it in ``BENCHMARKS``.
"""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from mmseg_ext.benchmark.measuring import (
    in_fresh_process,
    interleaved_medians,
    machine,
    peak_rise,
    ratio,
)
from mmseg_ext.errors import UserError

Run = Callable[[], Sequence[Tensor]]


@dataclass(frozen=True)
class OpBenchmark:
    """An operation that has a fast and a released form.

    Args:
        name: Name on the command line.
        shape: Shape of the input, as words for the table.
        make: Function that makes the inputs on a device and returns two functions, the fast and the
            released form. Each returns the tensors to compare, including gradients.
    """

    name: str
    shape: str
    make: Callable[[torch.device], tuple[Run, Run]]


@dataclass(frozen=True)
class OpResult:
    """Measurements of an operation; pairs are (ours, released).

    Args:
        name: Name of the operation.
        shape: Shape of its input.
        seconds: Median times of interleaved repeats.
        peak_bytes: Largest memory in addition to the inputs; None if it cannot be measured.
        difference: Largest of max abs(ours - released) / max abs(released) over the tensors.
    """

    name: str
    shape: str
    seconds: tuple[float, float]
    peak_bytes: tuple[int | None, int | None]
    difference: float


def find_benchmarks(packages: Sequence[str]) -> dict[str, OpBenchmark]:
    """``BENCHMARKS`` of all modules of importable packages, by name."""
    benchmarks: dict[str, OpBenchmark] = {}
    for package in packages:
        path = importlib.import_module(package).__path__
        for info in pkgutil.iter_modules(path, f'{package}.'):
            for entry in getattr(importlib.import_module(info.name), 'BENCHMARKS', ()):
                if benchmarks.setdefault(entry.name, entry) is not entry:
                    raise UserError(f"Two benchmarks are called '{entry.name}': rename one")
    return benchmarks


def run_benchmark(
    name: str, packages: Sequence[str], device: str = 'cpu', repeats: int = 7
) -> OpResult:
    """Measures an operation in three new processes: the times, and the peak memory of each form.

    Args:
        name: Name of the operation, a key of ``find_benchmarks``.
        packages: Packages with the benchmarks.
        device: Device, 'cpu' or 'cuda'.
        repeats: Number of timed runs of each form; the forms run in turn.
    """
    ours, released, difference = in_fresh_process(_measure_time, name, packages, device, repeats)
    peaks = [in_fresh_process(_measure_peak, name, packages, device, form) for form in (0, 1)]
    shape = find_benchmarks(packages)[name].shape
    return OpResult(name, shape, (ours, released), (peaks[0], peaks[1]), difference)


def results_table(results: Sequence[OpResult], device: str = 'cpu') -> Table:
    """Table with a row per operation; its title names device, CPU and version."""
    table = Table(title=machine(device), box=box.SIMPLE_HEAD, title_justify='left')
    table.add_column('op\n')
    table.add_column('input\n')
    for head in (
        'time\nours',
        '\nreleased',
        '\nratio',
        'peak memory\nours',
        '\nreleased',
        '\nratio',
    ):
        table.add_column(head, justify='right')
    table.add_column('largest\ndifference', justify='right')
    for r in results:
        times = [f'{s * 1e3:.1f} ms' for s in r.seconds]
        peaks = ['n/a' if b is None else f'{b / 2**20:.1f} MiB' for b in r.peak_bytes]
        ratios = ratio(*r.seconds), ratio(*r.peak_bytes)
        row = *times, ratios[0], *peaks, ratios[1], f'{r.difference:.1e}'
        table.add_row(r.name, r.shape, *row)
    return table


def largest_difference(ours: Sequence[Tensor], released: Sequence[Tensor]) -> float:
    """Largest of max abs(ours - released) / max abs(released) over the tensors of two results.

    Raises:
        UserError: The shapes of the results differ.
    """
    shapes = [[tuple(x.shape) for x in tensors] for tensors in (ours, released)]
    if shapes[0] != shapes[1]:
        raise UserError(f'the fast form returned shapes {shapes[0]}, the released form {shapes[1]}')
    worst = 0.0
    for a, b in zip(ours, released, strict=True):
        a, b = a.double(), b.double()
        largest = b.abs().max().item()
        worst = max(worst, (a - b).abs().max().item() / (largest or 1.0))
    return worst


def _make(name: str, packages: Sequence[str], device: str) -> tuple[Run, Run]:
    torch.manual_seed(0)
    return find_benchmarks(packages)[name].make(torch.device(device))


def _measure_time(
    name: str, packages: Sequence[str], device: str, repeats: int
) -> tuple[float, float, float]:
    forms = _make(name, packages, device)
    difference = largest_difference(*(form() for form in forms))  # it also warms up
    ours, released = interleaved_medians(forms, device, repeats)
    return ours, released, difference


def _measure_peak(name: str, packages: Sequence[str], device: str, form: int) -> int | None:
    return peak_rise(_make(name, packages, device)[form], device)
