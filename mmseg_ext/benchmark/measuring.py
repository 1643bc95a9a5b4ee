"""Measuring for benchmarks: fresh processes, interleaved times, peak memory, machine name."""

import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from mmseg_ext.processes import end_with_parent

CLEAR_REFS = Path('/proc/self/clear_refs')  # exists on Linux only
T = TypeVar('T')


def in_fresh_process(function: Callable[..., T], *args: Any) -> T:
    """Result of a module's ``function`` in a new process that has only done its imports.

    If the system can fork, the process is a fork of a server that has already done the imports.
    """
    forks = 'forkserver' in get_all_start_methods()
    context = get_context('forkserver' if forks else 'spawn')
    if forks:
        context.set_forkserver_preload(['mmseg.apis', 'torch._dynamo', 'mmseg_ext'])
    with ProcessPoolExecutor(1, context, end_with_parent) as pool:
        return pool.submit(function, *args).result()


def interleaved_medians(
    runs: Sequence[Callable[[], Any]], device: str, repeats: int
) -> tuple[float, ...]:
    """Median seconds of each function; they run in turn ``repeats`` times, without warm-up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, times in zip(runs, seconds, strict=True):
            _synchronize(device)
            start = time.perf_counter()
            run()
            _synchronize(device)
            times.append(time.perf_counter() - start)
    return tuple(median(times) for times in seconds)


def peak_rise(run: Callable[[], Any], device: str) -> int | None:
    """Largest increase of memory during a run, in bytes; None if the system cannot measure it.

    On a GPU it is the memory of tensors. On a CPU it is resident memory, which is correct only for
    the first run of a process, because later runs use freed memory again.
    """
    if torch.device(device).type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    if not CLEAR_REFS.exists():
        return None
    CLEAR_REFS.write_text('5')  # resets the peak to the memory that is resident now
    before = _resident_bytes('VmRSS')
    run()
    return _resident_bytes('VmHWM') - before


def _synchronize(device: str) -> None:
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


def _resident_bytes(field: str) -> int:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def ratio(ours: float | None, theirs: float | None) -> str:
    """``ours / theirs`` for a table."""
    return f'{ours / theirs:.2f}' if ours is not None and theirs else 'n/a'


def machine(device: str) -> str:
    """Line with the device, the CPU, the number of threads and the version of PyTorch."""
    cpu = platform.processor() or platform.machine()
    info = Path('/proc/cpuinfo')
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith('model name')]
        cpu = names[0].split(':')[1].strip() if names else cpu
    where = f'CPU {cpu}, {torch.get_num_threads()} threads'
    if torch.device(device).type == 'cuda':
        where = f'GPU {torch.cuda.get_device_name(device)}, {where}'
    return f'{where}, torch {torch.__version__}'
