"""One line swaps a head: every base model file takes every head, alone and inside HMSA."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from tests.tiny import CONFIG_DIR, build, make_batch, shrink, total_loss

BASES = sorted((CONFIG_DIR / '_base_' / 'models').glob('*.py'))
BASES = [path for path in BASES if path.stem != 'encoder_decoder']
PLAIN = {'loss_ce', 'acc_seg'}
TERMS = {'prior_unary', 'prior_recall', 'prior_specificity', 'prior_precision'}
BRANCHES = {f'{branch}.{key}' for branch in ('pam_cam', 'pam', 'cam') for key in PLAIN}
HEADS = {  # the line, and what the head logs
    'OCRNetHead': ("dict(type='OCRNetHead', **_base_.levels)", PLAIN | {'loss_aux'}),
    'SPNetHead': ("dict(type='SPNetHead')", PLAIN),
    'CPNetHead': ("dict(type='CPNetHead')", PLAIN | TERMS | {'loss_prior'}),
    'DANetHead': ("dict(type='DANetHead')", BRANCHES | {'pam.gamma', 'cam.gamma'}),
    'HANetHead': ("dict(type='HANetHead', **_base_.levels)", PLAIN),
    'FastFCNEncHead': ("dict(type='FastFCNEncHead')", PLAIN | {'loss_se'}),
    'FastFCNASPPHead': ("dict(type='FastFCNASPPHead')", PLAIN),
    'FCNHead': ("dict(type='FCNHead', channels=512)", PLAIN),
    'PSPHead': ("dict(type='PSPHead', channels=512)", PLAIN),
    'ASPPHead': ("dict(type='ASPPHead', channels=512)", PLAIN),
}
SIZE = (65, 97)
assert BASES


def shrunk(base: Path, model: str, folder: Path) -> dict:
    """The small model's config, of a config of two lines."""
    path = folder / 'config.py'
    path.write_text(f'_base_ = [{str(base)!r}]\nmodel = {model}\n')
    cfg: dict[str, Any] = Config.fromfile(path).model.to_dict()
    return shrink(cfg)


def trains_predicts_and_explains(model: nn.Module, keys: set[str]) -> None:
    """One step of training, then the model whole, by windows and in its own maps."""
    images, samples = make_batch(model.train(), size=SIZE)
    losses = model.loss(images, samples)
    assert set(losses) == {f'decode.{key}' for key in keys}
    total = sum(value.mean() for name, value in losses.items() if 'loss' in name)
    total.backward()
    assert total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    for test_cfg in (dict(mode='whole'), dict(mode='slide', crop_size=(64, 64), stride=(32, 48))):
        model.test_cfg = ConfigDict(test_cfg)
        with torch.no_grad():
            for result in model.predict(images, samples):
                assert result.seg_logits.data.shape == (model.num_classes, *SIZE)
    maps = model.explain(images, samples, pixel=(90, 3) if model.explains_pixels else None)
    assert bool(maps) == model.explains
    for name, values in maps.items():
        assert len(values) == len(images) and values.ndim == 4, name
        assert values.isfinite().all(), name


@pytest.mark.parametrize('base', BASES, ids=lambda path: path.stem)
@pytest.mark.parametrize('head', HEADS)
def test_head_on_base(base: Path, head: str, tmp_path: Path) -> None:
    line, keys = HEADS[head]
    trains_predicts_and_explains(build(shrunk(base, f'dict(decode_head={line})', tmp_path)), keys)


INSIDE = [(head, BASES[0]) for head in HEADS]
INSIDE += [(head, base) for head in ('OCRNetHead', 'FCNHead') for base in BASES[1:]]


@pytest.mark.parametrize(('head', 'base'), INSIDE, ids=lambda x: getattr(x, 'stem', x))
def test_head_inside_hmsa(head: str, base: Path, tmp_path: Path) -> None:
    line, keys = HEADS[head]
    model = f"dict(type='HMSA', decode_head=dict(type='HMSAHead', head={line}))"
    trains_predicts_and_explains(build(shrunk(base, model, tmp_path)), keys)


BATCH_NORM = 'Expected more than 1 value per channel|batch norm cannot train'  # PyTorch's and ours


@pytest.mark.parametrize('head', HEADS)
def test_an_image_of_a_few_pixels_predicts_and_trains_or_is_refused(
    head: str, tmp_path: Path
) -> None:
    model = build(shrunk(BASES[0], f'dict(decode_head={HEADS[head][0]})', tmp_path))
    for size in ((1, 97), (97, 1), (1, 1)):
        images, samples = make_batch(model.eval(), size=size)
        with torch.no_grad():
            assert model.predict(images)[0].seg_logits.data.isfinite().all()
        try:
            loss = total_loss(model.train(), (images, samples))
        except ValueError as error:
            assert re.search(BATCH_NORM, str(error))
        else:
            loss.backward()
            assert loss.isfinite()


@pytest.mark.parametrize('head', HEADS)
def test_a_map_of_one_value_is_refused_by_batch_norm(head: str, tmp_path: Path) -> None:
    model = build(shrunk(BASES[0], f'dict(decode_head={HEADS[head][0]})', tmp_path)).train()
    levels = [torch.randn(1, n, 1, 1) for n in (4, 8, 16, 32)]
    with pytest.raises(ValueError, match=BATCH_NORM):
        model.decode_head(levels)


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize(
    ('channels', 'index'), [([7, 8, 16, 32], [0, 1, 2, 3]), ([4, 8, 16, 32], [0, 1, 2, 4])], ids=str
)
def test_level_numbers_of_another_backbone_are_named(
    head: str, channels: list, index: list, tmp_path: Path
) -> None:
    cfg = shrunk(BASES[0], f'dict(decode_head={HEADS[head][0]})', tmp_path)
    cfg['decode_head'] |= dict(in_channels=channels, in_index=index)
    model = build(cfg)
    sentence = (
        rf'decode_head reads in_index=\[0, 1, 2, {index[3]}\] .* has 4 levels of \[4, 8, 16, 32\]'
    )
    for mode in ('loss', 'predict', 'tensor'):
        with pytest.raises(ValueError, match=sentence):
            model(*make_batch(model), mode=mode)
