"""The commands and the code of the README, run as they are written but on little data."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
COMMANDS = re.findall(r'^    ((?:python|bash) tools/.*)$', README, re.MULTILINE)
# What makes a command short; every tool that the README runs stands here.
SHORTER = {
    'make_streets': '--train 32 --val 2 --extra 2 --size 64 128',
    'check_dataset': '',
    'train': '--max-epochs 1 --crop-size 32 64',
    'test': '',
    'predict': '',
    'dist_train': '--max-epochs 1 --crop-size 32 64 --work-dir work_dirs/two',
}


def run(command: str, folder: Path) -> str:
    env = dict(os.environ, OMP_NUM_THREADS='1', PATH=f'{Path(sys.executable).parent}:/usr/bin:/bin')
    done = subprocess.run(
        command, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
    return done.stdout + done.stderr


def test_commands_run_one_after_the_other(tmp_path: Path) -> None:
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    assert len(COMMANDS) >= 5
    for command in COMMANDS:
        if 'CHECKPOINT' in command:
            (checkpoint,) = (tmp_path / 'work_dirs/hmsa/hrnet18s_ocr_streets').glob('epoch_*.pth')
            command = command.replace('CHECKPOINT', str(checkpoint))
        if 'SRC DST' not in command:
            tool = re.search(r'tools/(\w+)', command)[1]
            run(f'{command} {SHORTER[tool]}', tmp_path)
    assert (tmp_path / 'work_dirs/hmsa/hrnet18s_ocr_streets/table.md').exists()
    assert (tmp_path / 'work_dirs/hmsa/hrnet18s_ocr_streets/curves.png').exists()
    assert list((tmp_path / 'work_dirs/predictions').rglob('*.png'))
    assert list((tmp_path / 'work_dirs/pictures').rglob('*.png'))
    assert list((tmp_path / 'work_dirs/two').glob('epoch_1.pth'))


def test_code_prints_what_it_says() -> None:
    (code,) = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    (promised,) = re.findall(r'# (torch.Size.*)', code)
    assert promised in run(f"{sys.executable} -W ignore - <<'EOF'\n{code}\nEOF", ROOT)


@pytest.mark.parametrize(
    'path', sorted(ROOT.glob('configs/*/README.md')), ids=lambda path: path.parent.name
)
def test_pages_name_files_that_exist(path: Path) -> None:
    text = path.read_text()
    named = re.findall(r'(?:tools|configs)/[\w/.-]+\.(?:py|sh)', text)
    links = re.findall(r'\]\(([^):]+)\)', text)
    assert named
    assert all((ROOT / name).exists() for name in named)
    assert all((path.parent / link).exists() for link in links)
