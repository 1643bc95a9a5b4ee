"""Child processes end with their parent, whatever ends it; freed memory stays in a training."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmseg_ext.benchmark.model_result import LOG
from tests.benchmark.conftest import write_model
from tests.tiny_run import write_folder

ROOT = Path(__file__).parents[1]
SECONDS = 60
PARENT = """
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from mmseg_ext.processes import end_with_parent
if __name__ == '__main__':
    pool = ProcessPoolExecutor(3, get_context({method!r}), end_with_parent)
    jobs = [pool.submit(time.sleep, 0.2) for _ in range(3)]
    [job.result() for job in jobs]
    print('ready', flush=True)
    pool.submit(time.sleep, 1000).result()
"""


def descendants(pid: int) -> set[int]:
    """Processes below a process, and those below them."""
    parents = {}
    for status in Path('/proc').glob('[0-9]*/stat'):
        try:
            _, _, fields = status.read_text().rpartition(') ')
        except OSError:  # it has ended meanwhile
            continue
        parents[int(status.parent.name)] = int(fields.split()[1])
    below = {child for child, parent in parents.items() if parent == pid}
    return below.union(*map(descendants, below))


def are_running(pids: set[int]) -> set[int]:
    alive = set()
    for pid in pids:
        status = Path(f'/proc/{pid}/stat')
        if status.exists() and status.read_text().rpartition(') ')[2][0] != 'Z':
            alive.add(pid)
    return alive


def wait_until_ended(pids: set[int]) -> None:
    end = time.monotonic() + SECONDS
    while (alive := are_running(pids)) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert not alive, 'processes are left'


linux = pytest.mark.skipif(not Path('/proc').is_dir(), reason='needs /proc')


@linux
@pytest.mark.parametrize('method', ['fork', 'forkserver', 'spawn'])
def test_a_killed_parent_leaves_no_process(method: str, tmp_path: Path) -> None:
    script = tmp_path / 'parent.py'
    script.write_text(PARENT.format(method=method))
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=env)
    assert parent.stdout is not None and parent.stdout.readline() == b'ready\n'
    children = descendants(parent.pid)
    assert len(children) >= 3
    parent.kill()
    parent.wait()
    wait_until_ended(children)


@linux
def test_a_killed_table_leaves_no_process(tmp_path: Path) -> None:
    write_folder(tmp_path / 'data', val=40)
    config = write_model(tmp_path, 'first', seed=1)
    command = [sys.executable, str(ROOT / 'tools/test.py'), '--table', str(config), '--out', 'out']
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    table = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    end = time.monotonic() + SECONDS
    while not list(tmp_path.glob(f'out/rows/*/{LOG}')) and time.monotonic() < end:
        assert table.poll() is None
        time.sleep(0.05)
    children = descendants(table.pid)
    assert len(children) >= 2
    table.kill()
    table.wait()
    wait_until_ended(children)


FAULTS = """
import resource
import numpy as np
from mmseg_ext.processes import keep_freed_memory
{call}
def take():
    np.ones(2**23)  # 64 MiB
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='needs glibc')
def test_freed_memory_is_not_taken_anew() -> None:
    def faults(call: str) -> int:
        command = [sys.executable, '-c', FAULTS.format(call=call)]
        return int(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)

    assert faults('keep_freed_memory()') < faults('') / 10
