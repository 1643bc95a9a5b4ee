"""The queue of trainings: resumes what was stopped, omits what is finished, survives failures."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / 'benchmarks' / 'train_queue.py'
# Stands in for tools/train.py: three steps, each written down, and a config that fails.
TRAIN = """
import os, sys, time
from pathlib import Path
words = sys.argv[1:]
folder = Path(words[words.index('--work-dir') + 1])
assert '--resume' in words and os.environ['OMP_NUM_THREADS'] == '1'
folder.mkdir(exist_ok=True)
steps = folder / 'steps'
print('training', words)
if 'bad' in words[0]:
    sys.exit(3)
while (done := len(steps.read_text()) if steps.exists() else 0) < 3:
    time.sleep(float(os.environ.get('PAUSE', 0)))
    steps.write_text('x' * (done + 1))
(folder / 'best_epoch_3.pth').touch()
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / 'train.py').write_text(TRAIN)
    spec = importlib.util.spec_from_file_location('train_queue', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'TRAIN', [sys.executable, str(tmp_path / 'train.py')])
    (tmp_path / 'queue.txt').write_text(
        '# comment\n\nconfigs/a/x.py --seed 0  # first\nconfigs/a/bad.py\n'
        'configs/a/x.py --seed 1 --cfg-options "model.test_scales=(0.5, 1.0)"\n'
    )
    return module


def test_every_training_runs_once(queue: ModuleType, tmp_path: Path, capsys) -> None:
    trainings = queue.read_queue(tmp_path / 'queue.txt')
    names = ['a_x_seed_0', 'a_bad', 'a_x_seed_1_cfg-options_model.test_scales=_0.5__1.0_']
    assert [queue.name_of(words) for words in trainings] == names
    out = tmp_path / 'out'
    assert queue.run_queue(trainings, out, common=['--data-root', 'data']) == ['a_bad']
    assert [(out / name / 'finished').exists() for name in names] == [True, False, True]
    assert (out / names[0] / 'steps').read_text() == 'xxx'
    assert "'--data-root', 'data'" in (out / f'{names[0]}.log').read_text()
    assert '3 of 3' in capsys.readouterr().out
    assert queue.run_queue(trainings, out) == ['a_bad']
    assert '1 of 3' in capsys.readouterr().out
    assert (out / f'{names[0]}.log').read_text().count('training [') == 1


def test_a_training_waits_for_the_weights_of_another(
    queue: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / 'out'
    first = ['configs/a/x.py']
    second = ['configs/a/y.py', '--init', f'{out}/a_x/best_*.pth']
    never = ['configs/a/z.py', '--init', f'{out}/a_bad/best_*.pth']
    trainings = [second, never, first, ['configs/a/bad.py']]
    assert queue.run_queue(trainings, out) == ['a_bad', queue.name_of(never)]
    assert f"'{out}/a_x/best_epoch_3.pth'" in (out / f'{queue.name_of(second)}.log').read_text()
    printed = capsys.readouterr().out
    assert printed.index('finished a_x\n') < printed.index('started a_y')
    assert f'not started, because it needs the finished {out}/a_bad: a_z' in printed
    assert not (out / f'{queue.name_of(never)}.log').exists()


@pytest.mark.parametrize('stop', [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_queue_continues(stop: signal.Signals, queue: ModuleType, tmp_path: Path) -> None:
    source = SCRIPT.read_text().replace("'tools' / 'train.py'", "'train.py'")
    folder = tmp_path / 'benchmarks'
    folder.mkdir()
    (folder / 'train_queue.py').write_text(source)
    (tmp_path / 'queue.txt').write_text('configs/a/x.py\n')
    command = [sys.executable, 'benchmarks/train_queue.py', 'queue.txt', '--out', 'out']
    environment = dict(os.environ, PAUSE='0.5')
    with subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True) as run:
        steps = tmp_path / 'out' / 'a_x' / 'steps'
        while not steps.exists():
            time.sleep(0.05)
        if stop == signal.SIGKILL:
            os.killpg(run.pid, stop)  # its training too
        else:
            run.send_signal(stop)  # the queue stops its training
    if stop == signal.SIGTERM:
        before = steps.read_text()
        time.sleep(1.5)
        assert steps.read_text() == before
    assert not (tmp_path / 'out/a_x/finished').exists()
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / 'out/a_x/finished').exists() and steps.read_text() == 'xxx'
