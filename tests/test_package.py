"""The package as users get it: its wheel, its import, its place beside the host."""

import os
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


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    shutil.copytree(
        ROOT,
        source,
        ignore=lambda folder, names: {n for n in names if n.startswith('.') or n in OUTPUT},
    )
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-q']
    subprocess.run([*command, '-w', str(folder), str(source)], check=True)
    (path,) = folder.glob('mmsegmentation_ext-*.whl')
    return zipfile.ZipFile(path)


def test_wheel_carries_configs_and_tools(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for folder in ('configs', 'tools'):
        files = {p for p in (ROOT / folder).rglob('*.py') if '__pycache__' not in p.parts}
        packed = {f'mmseg_ext/.mim/{p.relative_to(ROOT)}' for p in files}
        assert packed and packed <= names
    template = 'mmseg_ext/benchmark/report.html.j2'
    assert {'mmseg_ext/papers/hmsa.py', 'mmseg_ext/py.typed', template} <= names


def test_wheel_loads_lists_and_predicts(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / 'site')
    code = (
        'import numpy as np, mmseg_ext; from mmseg.apis import MMSegInferencer, inference_model;'
        'names = mmseg_ext.list_models("*hrnet18s*camvid*"); model = mmseg_ext.load(names[0]);'
        'image = np.zeros((36, 48, 3), np.uint8); classes, _ = mmseg_ext.predict(model, image);'
        'host = inference_model(model, image).pred_sem_seg.data[0];'
        'inferencer = MMSegInferencer(model.cfg.filename, device="cpu");'
        'print(mmseg_ext.__file__, bool((host == classes).all()), model.cfg.filename,'
        ' inferencer(image)["predictions"].shape)'
    )
    env = dict(os.environ, PYTHONPATH=str(tmp_path / 'site'))
    command = [sys.executable, '-W', 'ignore', '-c', code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    package = tmp_path / 'site' / 'mmseg_ext'
    file, same, config, *shape = done.stdout.splitlines()[-1].split(maxsplit=3)
    assert Path(file).parent == package and same == 'True' and shape == ['(36, 48)']
    assert Path(config).is_relative_to(package / '.mim' / 'configs')


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
