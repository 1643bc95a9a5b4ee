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
            (checkpoint,) = (tmp_path / 'work_dirs/hmsa/efflite0_streets').glob('epoch_*.pth')
            command = command.replace('CHECKPOINT', str(checkpoint))
        if 'SRC DST' not in command:
            tool = re.search(r'tools/(\w+)', command)[1]
            run(f'{command} {SHORTER[tool]}', tmp_path)
    assert (tmp_path / 'work_dirs/hmsa/efflite0_streets/table.md').exists()
    assert (tmp_path / 'work_dirs/hmsa/efflite0_streets/curves.png').exists()
    assert list((tmp_path / 'work_dirs/predictions').rglob('*.png'))
    assert list((tmp_path / 'work_dirs/pictures').rglob('*.png'))
    assert list((tmp_path / 'work_dirs/two').glob('epoch_1.pth'))


def test_code_prints_what_it_says() -> None:
    (code,) = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    (promised,) = re.findall(r'# (torch.Size.*)', code)
    assert promised in run(f"{sys.executable} -W ignore - <<'EOF'\n{code}\nEOF", ROOT)


PAGES = sorted(ROOT.glob('configs/*/README.md'))
# Words that a page and a paper's module say of the licence of the released code.
LICENCES = {
    'cpnet': 'no licence',
    'danet': '(MIT)',
    'dsrl': '(Apache-2.0)',
    'fastfcn': '(MIT)',
    'gscnn': '(CC BY-NC-SA 4.0',
    'hanet': '(CC BY-NC 4.0',
    'hmsa': '(BSD-3-Clause style)',
    'magnet': '(AGPL-3.0',
    'oneformer': '(MIT)',
    'panet': '(MIT)',
    'pixel_contrast': '(MIT)',
    'pssl': '(Apache-2.0)',
    'spnet': '(MIT, "for non-commercial use")',
}
EXCLUDE_COMMERCIAL_USE = {'gscnn', 'hanet', 'spnet'}


def opening(path: Path) -> str:
    """First eight lines of a file, with single spaces in place of line breaks."""
    return ' '.join(' '.join(path.read_text().splitlines()[:8]).split())


def test_pages_and_modules_name_the_licence_of_the_released_code() -> None:
    assert {path.parent.name for path in PAGES} == {*LICENCES, 'fcn'}
    for paper, licence in LICENCES.items():
        page = opening(ROOT / f'configs/{paper}/README.md')
        module = ROOT / f'mmseg_ext/papers/{paper}.py'
        if not module.exists():
            module = module.with_suffix('') / '__init__.py'
        assert licence in page and licence in opening(module), paper
        assert (
            paper == 'cpnet'
            or re.search('weights converted .* licence', page, re.I)
            or ('Converted weights stay under' in page)
        ), f'{paper}: the page does not say the licence of converted weights'
        forbids = re.search('forbids commercial use|not for commercial use', page)
        assert bool(forbids) == (paper in EXCLUDE_COMMERCIAL_USE), paper


@pytest.mark.parametrize(
    'path',
    [ROOT / 'README.md', *ROOT.glob('benchmarks/*.md'), *ROOT.glob('docs/*.md'), *PAGES],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_tables_are_whole(path: Path) -> None:
    text = re.sub(r'^```.*?^```', '', path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r'(?:^\|.*\n?)+', text, re.MULTILINE):
        rows = [re.sub('`[^`]*`', '', row).count('|') for row in table.splitlines()]
        assert set(rows) == {rows[0]}, f'rows of different widths:\n{table}'
        line = [*table.splitlines(), ''][1]
        assert re.fullmatch(r'(\|[-: ]+)+\|', line), f'no line below the names:\n{table}'


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.parent.name)
def test_pages_name_files_that_exist(path: Path) -> None:
    text = path.read_text()
    named = re.findall(r'(?:tools|configs)/[\w/.-]+\.(?:py|sh)', text)
    links = re.findall(r'\]\(([^):]+)\)', text)
    assert named
    assert all((ROOT / name).exists() for name in named)
    assert all((path.parent / link).exists() for link in links)
