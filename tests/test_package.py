"""The package as users get it: its wheel, its import, its place beside the host."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from mmengine.config.utils import MODULE2PACKAGE
from mmseg import registry

from mmseg_ext import host

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    ).stdout


def test_wheel_carries_configs_and_tools(tmp_path: Path) -> None:
    source = tmp_path / 'source'
    shutil.copytree(
        ROOT,
        source,
        ignore=lambda folder, names: {n for n in names if n.startswith('.') or n in OUTPUT},
    )
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-q']
    subprocess.run([*command, '-w', str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob('mmsegmentation_ext-*.whl')
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ('configs', 'tools'):
        files = {p for p in (ROOT / folder).rglob('*.py') if '__pycache__' not in p.parts}
        packed = {f'mmseg_ext/.mim/{p.relative_to(ROOT)}' for p in files}
        assert packed and packed <= names
    template = 'mmseg_ext/benchmark/report.html.j2'
    assert {'mmseg_ext/papers/hmsa.py', 'mmseg_ext/py.typed', template} <= names


OUTPUT = ('work_dirs', 'data', 'build', 'dist', '__pycache__')


def test_import_is_light() -> None:
    loaded = run('import sys, mmseg_ext; print("torch" in sys.modules, "cv2" in sys.modules)')
    assert loaded.split() == ['False', 'False']


def test_types_are_found_after_the_import_alone() -> None:
    """Also where the host has looked its own modules up before."""
    code = (
        'from mmseg.registry import MODELS, TRANSFORMS; MODELS.get("FCNHead"); import mmseg_ext;'
        'print(*(r.get(n) is not None for r, n in'
        ' ((MODELS, "HMSA"), (MODELS, "RMILoss"), (TRANSFORMS, "RandomScaleCrop"))))'
    )
    assert run(code).split()[-3:] == ['True'] * 3


def test_configs_of_the_host_are_found_and_nothing_is_installed_for_them() -> None:
    assert MODULE2PACKAGE['mmseg'] == 'mmseg' and MODULE2PACKAGE['mmseg_ext'] == 'mmseg_ext'


def test_missing_host_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, 'find_spec', lambda name: None if name == 'mmcv' else object())
    with pytest.raises(ImportError, match=r'needs mmcv: run pip install torch, .*\[onedl\]'):
        host.check_host()


def test_both_families_side_by_side_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Distribution:
        def __init__(self, name: str) -> None:
            self.metadata = dict(Name=name)

    both = [Distribution('mmcv'), Distribution('onedl_mmcv')]
    monkeypatch.setattr(host, 'distributions', lambda: both)
    with pytest.warns(UserWarning, match='pip uninstall mmcv onedl-mmcv'):
        host.check_host()


def test_preparing_twice_changes_nothing() -> None:
    before = list(registry.MODELS._locations)
    host.prepare_host()
    assert registry.MODELS._locations == before
