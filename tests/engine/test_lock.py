"""Two trainings in a folder: the second is refused while the first runs."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mmseg_ext.engine.lock import LOCK, only_training
from mmseg_ext.errors import UserError
from tests.tiny_run import write_config, write_folder

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from mmseg_ext.engine.lock import only_training
with only_training(sys.argv[1]):
    print('holds', flush=True)
    sys.stdin.read()
"""


def start_holder(folder: Path) -> subprocess.Popen:
    command = [sys.executable, '-W', 'ignore', '-c', HOLDER, str(folder)]
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder = subprocess.Popen(command, env=env, **pipes)
    while holder.stdout.readline() != 'holds\n':
        assert holder.poll() is None
    return holder


def test_a_folder_is_free_again_after_the_end_and_after_a_kill(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    sentence = f'host {socket.gethostname()}, process {holder.pid}'
    refusal = pytest.raises(UserError, match=f'running training .{sentence}.: stop it')
    with refusal, only_training(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text() == f'{sentence}\n'
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with only_training(tmp_path):
        assert f'process {os.getpid()}\n' in (tmp_path / LOCK).read_text()
    assert not (tmp_path / LOCK).exists()

    holder = start_holder(tmp_path)
    holder.communicate('')
    assert holder.returncode == 0 and not (tmp_path / LOCK).exists()


def test_the_children_of_a_killed_training_do_not_hold_its_folder(tmp_path: Path) -> None:
    code = HOLDER.replace(
        '    print', '    import os, time\n    os.fork() or time.sleep(30)\n    print'
    )
    command = [sys.executable, '-W', 'ignore', '-c', code, str(tmp_path)]
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    group = subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    while group.stdout.readline() != b'holds\n':
        assert group.poll() is None
    group.kill()
    group.wait()
    with only_training(tmp_path):
        pass
    os.killpg(group.pid, signal.SIGKILL)


def test_a_second_training_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    config = write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data'))
    run = tmp_path / 'run'
    run.mkdir()
    holder = start_holder(run)
    command = [sys.executable, '-W', 'ignore', str(ROOT / 'tools/train.py'), str(config)]
    command += ['--max-iters', '1', '--work-dir', str(run)]
    env = dict(os.environ, PYTHONPATH=str(ROOT), RANK='1')  # left by another program
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f'error: {run} belongs to a running training')
    assert 'give another folder by --work-dir' in done.stderr
    assert [path.name for path in run.iterdir()] == [LOCK]
    holder.communicate('')
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (run / 'iter_1.pth').is_file() and not (run / LOCK).exists()
