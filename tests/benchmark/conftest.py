"""A table of two tested models, one of another network and one that was not trained."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmseg.apis import init_model
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_ext.benchmark.rows import Row
from mmseg_ext.benchmark.table import make_table
from tests.tiny_run import CLASSES, write_config, write_folder

# No label and no prediction shows the last class.
EMPTY = (*CLASSES, 'dog')


@dataclass
class Made:
    """A table: its folder, the folder it was called from, its models and rows."""

    out: Path
    cwd: Path
    models: list[str]
    rows: list[Row]


def write_model(folder: Path, name: str, *, seed: int) -> Path:
    """A config that was not trained and the weights of ``seed``, in its work directory."""
    config = write_config(folder / f'{name}.py', folder / 'data', classes=EMPTY)
    text = config.read_text().replace('num_classes=3', 'num_classes=4')
    config.write_text(text)
    torch.manual_seed(seed)
    model = init_model(str(config), device='cpu')
    with torch.no_grad():
        model.decode_head.conv_seg.bias[3] = -1e3  # never predicts the last class
        for norm in filter(lambda m: isinstance(m, _BatchNorm), model.modules()):
            norm.running_mean.normal_(0, 0.3)  # as after a training
            norm.running_var.uniform_(0.2, 2)
    work_dir = folder / 'work_dirs' / name
    work_dir.mkdir(parents=True)
    meta = dict(dataset_meta=dict(classes=EMPTY, palette=[[0, 0, 0]] * 4))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), work_dir / 'best_mIoU_iter_1.pth')
    return config


@pytest.fixture(scope='session')
def table(tmp_path_factory: pytest.TempPathFactory) -> Made:
    cwd = tmp_path_factory.mktemp('table')
    write_folder(cwd / 'data', val=1)
    for name, seed in (('first', 1), ('second', 2), ('third', 3)):
        write_model(cwd, name, seed=seed)
    (cwd / 'work_dirs/third/best_mIoU_iter_1.pth').unlink()
    torch.save({'conv9': torch.zeros(3)}, cwd / 'other.pth')
    points = '[{"iter": 10, "loss": 2.0}, {"iter": 20, "loss": 1.0, "val_loss": 1.5, "mIoU": 30}]'
    (cwd / 'work_dirs/first/curves.json').write_text(points)
    models = ['first.py', 'first.py=other.pth', 'second.py', 'third.py', 'third.py=gone.pth']
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        return Made(cwd / 'out', cwd, models, make_table(models, 'out'))


@pytest.fixture
def made(table: Made, monkeypatch: pytest.MonkeyPatch) -> Made:
    """The table, seen from the folder where it was made."""
    monkeypatch.chdir(table.cwd)
    return table
