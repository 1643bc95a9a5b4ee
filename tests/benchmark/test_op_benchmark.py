import io
import runpy
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from mmseg_ext.benchmark.op_benchmark import (
    OpResult,
    find_benchmarks,
    largest_difference,
    results_table,
    run_benchmark,
)

ROOT = Path(__file__).resolve().parents[2]

WASTEFUL = """
import time
import torch
from mmseg_ext.benchmark.op_benchmark import OpBenchmark

def make(device):
    x = torch.ones(2**20, device=device)

    def released():
        copies = [x + i for i in range(16)]  # 64 MiB
        time.sleep(0.05)
        return [copies[0] * 2]

    return (lambda: [x * 2.002]), released

BENCHMARKS = [OpBenchmark('double', '1M', make)]
"""


def test_time_memory_and_difference_are_measured_in_fresh_processes(tmp_path, monkeypatch):
    package = tmp_path / 'ops_to_measure'
    package.mkdir()
    (package / 'double.py').write_text(WASTEFUL)
    monkeypatch.syspath_prepend(tmp_path)
    result = run_benchmark('double', ['ops_to_measure'], repeats=3)
    assert result.difference == pytest.approx(1e-3, rel=1e-3)
    assert result.seconds[0] < 0.05 <= result.seconds[1]
    if sys.platform == 'linux':
        assert result.peak_bytes[0] < 32 * 2**20
        assert 60 * 2**20 < result.peak_bytes[1] < 100 * 2**20


def test_two_benchmarks_of_one_name_are_refused(tmp_path, monkeypatch):
    package = tmp_path / 'ops_of_one_name'
    package.mkdir()
    for name in ('first', 'second'):
        (package / f'{name}.py').write_text(WASTEFUL)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="'double': rename one"):
        find_benchmarks(['ops_of_one_name'])


def test_the_largest_difference_is_relative_to_each_tensor():
    released = [torch.tensor([100.0, 1.0]), torch.tensor([1.0, -2.0]), torch.zeros(2)]
    ours = [torch.tensor([100.0, 2.0]), torch.tensor([1.0, -2.5]), torch.zeros(2)]
    assert largest_difference(ours, released) == 0.25
    with pytest.raises(ValueError, match=r'shapes \[\(2,\)\], the released form \[\(1, 2\)\]'):
        largest_difference([torch.zeros(2)], [torch.zeros(1, 2)])


def test_the_table_names_machine_version_and_ratios():
    result = OpResult('rmi', '19x512x1024', (0.1, 0.4), (30 * 2**20, 100 * 2**20), 1e-7)
    stream = io.StringIO()
    Console(file=stream, width=200).print(results_table([result]))
    text = stream.getvalue()
    for part in ('rmi', '100.0 ms', '0.25', '30.0 MiB', '0.30', '1.0e-07', torch.__version__):
        assert part in text


def test_an_unknown_name_is_answered_with_the_list(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['benchmark_ops.py', 'rim'])
    monkeypatch.setattr(sys, 'path', [*sys.path])  # the tool adds to it
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / 'tools' / 'benchmark_ops.py'), run_name='__main__')
    message = capsys.readouterr().err
    assert 'no operation is called rim: choose from' in message
    assert 'centroids' in message and 'rmi' in message
    monkeypatch.setattr(sys, 'argv', ['benchmark_ops.py', 'rmi', '--device', 'cuda:99'])
    with pytest.raises(SystemExit, match='^error: PyTorch sees no device cuda:99 here'):
        runpy.run_path(str(ROOT / 'tools' / 'benchmark_ops.py'), run_name='__main__')
