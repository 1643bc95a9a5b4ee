"""Fast forms against the released ones: time, peak memory and difference, measured in one run.

An operation is measured by an ``OpBenchmark`` in the list ``BENCHMARKS`` of a module in
``tests/oracles``, beside the released form, or in ``tests/papers``.
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
        name: What the user types.
        shape: Of the input, for the table.
        make: Makes the inputs on a device and returns the two forms, ours first; each runs once and
            returns the tensors to compare, gradients included.
    """

    name: str
    shape: str
    make: Callable[[torch.device], tuple[Run, Run]]


@dataclass(frozen=True)
class OpResult:
    """What one operation took; pairs are (ours, released).

    Args:
        name: Of the operation.
        shape: Of its input.
        seconds: Median times of interleaved repeats.
        peak_bytes: Largest memory beyond the inputs; None where it cannot be measured.
        difference: Largest difference of a tensor, over the largest value of the released one.
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
                if entry.name in benchmarks:
                    raise UserError(f"Two benchmarks are called '{entry.name}': rename one")
                benchmarks[entry.name] = entry
    return benchmarks


def run_benchmark(
    name: str, packages: Sequence[str], device: str = 'cpu', repeats: int = 7
) -> OpResult:
    """Measures one operation in three fresh processes: time, and the peak memory of either form.

    Args:
        name: Of the operation, a key of ``find_benchmarks``.
        packages: Packages with the benchmarks.
        device: 'cpu' or 'cuda'.
        repeats: Of either form, timed in turn.
    """
    ours, released, difference = in_fresh_process(_measure_time, name, packages, device, repeats)
    peaks = [in_fresh_process(_measure_peak, name, packages, device, form) for form in (0, 1)]
    shape = find_benchmarks(packages)[name].shape
    return OpResult(name, shape, (ours, released), (peaks[0], peaks[1]), difference)


def results_table(results: Sequence[OpResult], device: str = 'cpu') -> Table:
    """One row for each operation, under the names of device, CPU and versions."""
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
    """Largest difference of two results, each tensor over its largest released value.

    Raises:
        ValueError: the two do not have the same shapes.
    """
    shapes = [[tuple(x.shape) for x in tensors] for tensors in (ours, released)]
    if shapes[0] != shapes[1]:
        raise UserError(f'Ours returned shapes {shapes[0]}, the released form {shapes[1]}')
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
    difference = largest_difference(*(form() for form in forms))  # which also warms up
    ours, released = interleaved_medians(forms, device, repeats)
    return ours, released, difference


def _measure_peak(name: str, packages: Sequence[str], device: str, form: int) -> int | None:
    return peak_rise(_make(name, packages, device)[form], device)
