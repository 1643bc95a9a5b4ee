"""What a person sees of a training, at a terminal."""

import errno
import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from mmseg_ext.engine.progress import ProgressHook
from tests.tiny_run import write_config, write_folder

ROOT = Path(__file__).parents[2]
EXTRA = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
val_evaluator = test_evaluator = dict(type='ClassIoUMetric', iou_metrics=['mIoU'])
custom_hooks = [dict(type='ValidationLossHook')]
default_hooks['checkpoint'].update(save_best=['IoU.wall', 'val_loss'], interval=2)
default_hooks['logger'].update(interval=1)
"""


def at_a_terminal(command: list[str], folder: Path) -> str:
    """What a command shows on a terminal 100 columns wide, without colours and the bar itself."""
    ours, theirs = pty.openpty()
    env = {**os.environ, 'TERM': 'xterm', 'COLUMNS': '100'}
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b''
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait() == 0, shown.decode()
    return re.sub(r'\x1b\[[0-9;?]*[A-Za-z]|[━╸╺\r]', '', shown.decode())


def test_a_terminal_shows_a_bar_and_the_log_its_lines(tmp_path):
    config = write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data'), extra=EXTRA)
    shown = at_a_terminal([sys.executable, str(ROOT / 'tools/train.py'), str(config)], tmp_path)
    assert re.search(r'training +4/4 0:00:00 loss \d', shown)
    assert re.search(r'validation +\d/2', shown)
    scores = re.findall(r'iteration (\d)  loss \S+  aAcc .*val_loss (\S+)', shown)
    assert [iteration for iteration, _ in scores] == ['2', '4']
    assert 'Iter(train)' not in shown and 'results in work_dirs/tiny' in shown
    log = next((tmp_path / 'work_dirs/tiny').glob('*/*.log')).read_text()
    assert log.count('Iter(train)') == 4
    names = {path.name for path in (tmp_path / 'work_dirs/tiny').glob('best*')}
    assert len(names) == 2 and any('IoU.wall' in name for name in names)


def test_a_terminal_that_is_closed_loses_nothing(tmp_path):
    config = write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data'))
    tool = str(ROOT / 'tools/train.py')
    arguments = [tool, str(config), '--max-iters', '100000', '--work-dir', str(tmp_path / 'run')]
    code = (
        f'import runpy, sys; from mmseg_ext.engine import progress; progress.SECONDS = 0;'
        f'sys.argv = {arguments}; runpy.run_path({tool!r}, run_name="__main__")'
    )
    process, terminal = pty.fork()
    if process == 0:
        env = {**os.environ, 'TERM': 'xterm', 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
        os.execve(sys.executable, [sys.executable, '-W', 'ignore', '-c', code], env)
    shown = b''
    while not re.search(rb'[1-9]\d*/100000', shown):
        shown += os.read(terminal, 4096)
    time.sleep(0.05)  # within an iteration, which the bar follows
    os.close(terminal)
    os.waitpid(process, 0)
    assert [path.name for path in (tmp_path / 'run').glob('*.pth')] == ['interrupted.pth']


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.EIO, 'Input/output error')


def test_a_bar_on_a_closed_terminal_raises_nothing():
    hook = ProgressHook(Console(file=Closed(), force_terminal=True))
    hook.progress.live._started = True
    with pytest.raises(OSError, match='Input/output'):
        hook.progress.refresh()
    hook._show(at_once=True)
