"""Fast forms against the released ones: time, peak memory and difference, measured in one run.

An operation is measured by an :class:`OpBenchmark` in the list ``BENCHMARKS`` of a module of
``tests/oracles``, beside the released form.
"""

import importlib
import pkgutil
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor

Run = Callable[[], Sequence[Tensor]]
CLEAR_REFS = Path('/proc/self/clear_refs')  # Linux has it


@dataclass(frozen=True)
class OpBenchmark:
    """An operation that has a fast and a released form.

    Args:
        name: what the user types.
        shape: of the input, for the table.
        make: makes the inputs on a device and returns the two forms, ours first; each runs once and
            returns the tensors to compare, gradients included.
    """

    name: str
    shape: str
    make: Callable[[torch.device], tuple[Run, Run]]


@dataclass(frozen=True)
class OpResult:
    """What one operation took; pairs are (ours, released).

    Args:
        name: of the operation.
        shape: of its input.
        seconds: median times of interleaved repeats.
        peak_bytes: largest memory beyond the inputs; None where it cannot be measured.
        difference: largest difference of a tensor, over the largest value of the released one.
    """

    name: str
    shape: str
    seconds: tuple[float, float]
    peak_bytes: tuple[int | None, int | None]
    difference: float


def find_benchmarks(package: str) -> dict[str, OpBenchmark]:
    """The ``BENCHMARKS`` of all modules of an importable package, by name."""
    found: dict[str, OpBenchmark] = {}
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__, f'{package}.'):
        for entry in getattr(importlib.import_module(info.name), 'BENCHMARKS', ()):
            if entry.name in found:
                raise ValueError(f"Two benchmarks are called '{entry.name}': rename one.")
            found[entry.name] = entry
    return found


def run_benchmark(name: str, package: str, device: str = 'cpu', repeats: int = 7) -> OpResult:
    """Measures one operation in three fresh processes: time, and the peak memory of either form.

    Args:
        name: of the operation, a key of :func:`find_benchmarks`.
        package: that holds it.
        device: 'cpu' or 'cuda'.
        repeats: of either form, timed in turn.
    """
    ours, released, difference = _in_fresh_process(_measure_time, name, package, device, repeats)
    peaks = [_in_fresh_process(_measure_peak, name, package, device, form) for form in (0, 1)]
    shape = find_benchmarks(package)[name].shape
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
        ours, released = r.peak_bytes
        peaks = ['n/a'] * 3
        if ours is not None and released is not None:
            peaks = [
                f'{ours / 2**20:.1f} MiB',
                f'{released / 2**20:.1f} MiB',
                _ratio(ours, released),
            ]
        table.add_row(r.name, r.shape, *times, _ratio(*r.seconds), *peaks, f'{r.difference:.1e}')
    return table


def largest_difference(ours: Sequence[Tensor], released: Sequence[Tensor]) -> float:
    """Largest difference of two results, each tensor over its largest released value.

    Raises:
        ValueError: the two do not have the same shapes.
    """
    shapes = [[tuple(x.shape) for x in tensors] for tensors in (ours, released)]
    if shapes[0] != shapes[1]:
        raise ValueError(f'Ours returned shapes {shapes[0]}, the released form {shapes[1]}.')
    worst = 0.0
    for a, b in zip(ours, released, strict=True):
        a, b = a.double(), b.double()
        largest = b.abs().max().item()
        worst = max(worst, (a - b).abs().max().item() / (largest or 1.0))
    return worst


def _in_fresh_process(function: Callable, *args: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def _make(name: str, package: str, device: str) -> tuple[Run, Run]:
    torch.manual_seed(0)
    return find_benchmarks(package)[name].make(torch.device(device))


def _measure_time(name: str, package: str, device: str, repeats: int) -> tuple[float, float, float]:
    forms = _make(name, package, device)
    difference = largest_difference(*(form() for form in forms))  # which also warms up
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for form, times in zip(forms, seconds, strict=True):
            synchronize(torch.device(device))
            start = time.perf_counter()
            form()
            synchronize(torch.device(device))
            times.append(time.perf_counter() - start)
    return median(seconds[0]), median(seconds[1]), difference


def _measure_peak(name: str, package: str, device: str, form: int) -> int | None:
    run = _make(name, package, device)[form]
    return peak_bytes_of(run, torch.device(device), used_bytes(torch.device(device)))


def used_bytes(device: torch.device) -> int | None:
    """What tensors take on a GPU; what this process takes of the memory, where Linux tells."""
    if device.type == 'cuda':
        return torch.cuda.memory_allocated(device)
    return _resident_bytes('VmRSS') if CLEAR_REFS.exists() else None


def peak_bytes_of(run: Callable[[], Any], device: torch.device, before: int | None) -> int | None:
    """By how much the memory in use exceeds ``before`` (of ``used_bytes``) at most in a run."""
    if before is None:
        return None
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    CLEAR_REFS.write_text('5')  # sets the peak to what is resident now
    run()
    return _resident_bytes('VmHWM') - before


def _resident_bytes(field: str) -> int:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def synchronize(device: torch.device) -> None:
    """Waits for what runs on a GPU."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _ratio(ours: float, released: float) -> str:
    return f'{ours / released:.2f}' if released else 'n/a'


def machine(device: str) -> str:
    """Names device, CPU, threads and version of PyTorch."""
    cpu = platform.processor() or platform.machine()
    info = Path('/proc/cpuinfo')
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith('model name')]
        cpu = names[0].split(':')[1].strip() if names else cpu
    where = f'CPU {cpu}, {torch.get_num_threads()} threads'
    if torch.device(device).type == 'cuda':
        where = f'GPU {torch.cuda.get_device_name(device)}, {where}'
    return f'{where}, torch {torch.__version__}'
