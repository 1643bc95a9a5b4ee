"""One line swaps a head: every base model file takes every head, alone and inside HMSA."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from tests.tiny import CONFIG_DIR, build, make_batch, shrink, total_loss

BASES = sorted((CONFIG_DIR / '_base_' / 'models').glob('*.py'))
BASES = [path for path in BASES if path.stem != 'encoder_decoder']
HEADS = {
    'OCRNetHead': "dict(type='OCRNetHead', **_base_.levels)",
    'FCNHead': "dict(type='FCNHead', channels=512)",
    'PSPHead': "dict(type='PSPHead', channels=512)",
    'ASPPHead': "dict(type='ASPPHead', channels=512)",
}
assert BASES


def train_a_step(base: Path, model: str, folder: Path) -> None:
    """One step of the shrunk model of a config of two lines."""
    path = folder / 'config.py'
    path.write_text(f'_base_ = [{str(base)!r}]\nmodel = {model}\n')
    cfg: dict[str, Any] = Config.fromfile(path).model.to_dict()
    built = build(shrink(cfg)).train()
    loss = total_loss(built, make_batch(built))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in built.parameters())


@pytest.mark.parametrize('base', BASES, ids=lambda path: path.stem)
@pytest.mark.parametrize('head', HEADS)
def test_head_on_base(base: Path, head: str, tmp_path: Path) -> None:
    train_a_step(base, f'dict(decode_head={HEADS[head]})', tmp_path)


@pytest.mark.parametrize('base', BASES, ids=lambda path: path.stem)
@pytest.mark.parametrize('head', ['OCRNetHead', 'FCNHead'])
def test_head_inside_hmsa(base: Path, head: str, tmp_path: Path) -> None:
    wrapped = f"dict(type='HMSAHead', head={HEADS[head]})"
    train_a_step(base, f"dict(type='HMSA', decode_head={wrapped})", tmp_path)
