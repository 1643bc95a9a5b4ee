"""One line swaps a head: on a base model, inside HMSA, in a finished config of every paper."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from mmseg_ext.datasets.streets import make_streets
from mmseg_ext.errors import UserError
from tests.tiny import CONFIG_DIR, build, make_batch, shrink, tiny, total_loss
from tests.tiny_run import forget_visualizers

BASES = sorted((CONFIG_DIR / '_base_' / 'models').glob('*.py'))
WITHOUT = ('encoder_decoder', 'oneformer_r50', 'panet_efflite0', 'panet_r50')  # see FINISHED
WITHOUT += ('stdc2', 'pp_liteseg')  # auxiliary heads that log as well
BASES = [p for p in BASES if p.stem not in WITHOUT]
HRNET = CONFIG_DIR / '_base_' / 'models' / 'hrnet.py'  # where a single base is enough
PLAIN = {'loss_ce', 'acc_seg'}
TERMS = {'prior_unary', 'prior_recall', 'prior_specificity', 'prior_precision'}
BRANCHES = {f'{branch}.{key}' for branch in ('pam_cam', 'pam', 'cam') for key in PLAIN}
HEADS = {  # the line, and what the head logs
    'OCRNetHead': ("dict(_delete_=True, type='OCRNetHead')", PLAIN | {'loss_aux'}),
    'SPNetHead': ("dict(_delete_=True, type='SPNetHead')", PLAIN),
    'CPNetHead': ("dict(_delete_=True, type='CPNetHead')", PLAIN | TERMS | {'loss_prior'}),
    'DANetHead': ("dict(_delete_=True, type='DANetHead')", BRANCHES | {'pam.gamma', 'cam.gamma'}),
    'HANetHead': ("dict(_delete_=True, type='HANetHead')", PLAIN),
    'FastFCNEncHead': ("dict(_delete_=True, type='FastFCNEncHead')", PLAIN | {'loss_se'}),
    'FastFCNASPPHead': ("dict(_delete_=True, type='FastFCNASPPHead')", PLAIN),
    'FCNHead': ("dict(_delete_=True, type='FCNHead', channels=512)", PLAIN),
    'PSPHead': ("dict(_delete_=True, type='PSPHead', channels=512)", PLAIN),
    'ASPPHead': ("dict(_delete_=True, type='ASPPHead', channels=512)", PLAIN),
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


# HANet leaves out a level, whose convolution in an FPN has no gradient then.
PAIRS = [(h, b) for h in HEADS for b in BASES if (h, b.stem) != ('HANetHead', 'r50-fpn')]


@pytest.mark.parametrize(('head', 'base'), PAIRS, ids=lambda x: getattr(x, 'stem', x))
def test_head_on_base(head: str, base: Path, tmp_path: Path) -> None:
    line, keys = HEADS[head]
    trains_predicts_and_explains(build(shrunk(base, f'dict(decode_head={line})', tmp_path)), keys)


INSIDE = [(head, HRNET) for head in HEADS]
INSIDE += [(h, base) for h in ('OCRNetHead', 'FCNHead') for base in BASES if base != HRNET]


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
    model = build(shrunk(HRNET, f'dict(decode_head={HEADS[head][0]})', tmp_path))
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
    model = build(shrunk(HRNET, f'dict(decode_head={HEADS[head][0]})', tmp_path)).train()
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
    cfg = shrunk(HRNET, f'dict(decode_head={HEADS[head][0]})', tmp_path)
    cfg['decode_head'] |= dict(in_channels=channels, in_index=index)
    sentence = (
        rf'decode_head reads in_index=\[0, 1, 2, {index[3]}\] .* 4 levels of \[4, 8, 16, 32\]'
    )
    with pytest.raises(UserError, match=sentence):
        build(cfg)


FINISHED = {  # a config of every paper, and the keys on the way to its head
    'cpnet/r101_cityscapes': '',
    'danet/hrnet18s_camvid': '',
    'dsrl/hrnet18s_camvid': '',
    'fastfcn/r50_jpu_encnet_cityscapes': '',
    'gscnn/r50_camvid': '',
    'hanet/r101_deeplabv3plus_cityscapes': '',
    'hmsa/hrnet18s_ocr_camvid': 'decode_head',
    'magnet/hrnet18s_ocr_camvid': 'segmentor',
    'oneformer/r50_cityscapes': '',
    'panet/panet_r50_coco': '',
    'pixel_contrast/hrnet18s_camvid': 'decode_head',
    'spnet/r101_cityscapes': '',
}
SWAPPED = ['SPNetHead', 'CPNetHead', 'DANetHead', 'HANetHead', 'OCRNetHead']
SWAPPED += ['FCNHead', 'PSPHead', 'ASPPHead']


def child(config: str, head: str) -> str:
    """Line of a child config that swaps the head."""
    line = HEADS[head][0]
    if FINISHED[config] == 'decode_head':
        return f'model = dict(decode_head=dict(head={line}))'
    if FINISHED[config] == 'segmentor':
        return f'model = dict(segmentor=dict(decode_head={line}))'
    return f'model = dict(decode_head={line})'


@pytest.mark.parametrize('config', FINISHED)
@pytest.mark.parametrize('head', SWAPPED)
def test_head_in_a_child_of_a_finished_config(config: str, head: str, tmp_path: Path) -> None:
    path = tmp_path / 'child.py'
    path.write_text(f'_base_ = [{str(CONFIG_DIR / config)!r} + ".py"]\n{child(config, head)}\n')
    cfg = Config.fromfile(path).model
    base = cfg.get('segmentor', cfg)
    model = build(shrink(cfg.to_dict()))
    inner = getattr(model, 'segmentor', model).decode_head
    inner = getattr(inner, 'head', inner)
    assert type(inner).__name__ == head
    assert inner.num_classes == base.num_classes
    assert inner.norm_cfg['type'] == base.norm_cfg['type'] == 'SyncBN'
    assert any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in inner.modules())
    if head in ('HANetHead', 'OCRNetHead'):
        assert list(inner.in_index) == base.levels.in_index
    batch = make_batch(model.train(), size=SIZE)
    loss = total_loss(model, batch)
    loss.backward()
    assert loss.isfinite()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    with torch.no_grad():
        logits = model.eval().predict(*batch)[0].seg_logits.data
    assert logits.shape == (base.num_classes, *SIZE)


@pytest.mark.parametrize('config', FINISHED)
def test_the_number_of_classes_is_one_key(config: str) -> None:
    model = tiny(CONFIG_DIR / f'{config}.py', num_classes=5)
    whole = getattr(model, 'segmentor', model)
    auxiliary = [whole.auxiliary_head] if whole.with_auxiliary_head else []
    assert {head.num_classes for head in (model, whole.decode_head, *auxiliary)} == {5}
    batch = make_batch(model.train(), size=SIZE)
    assert total_loss(model, batch).isfinite()
    with torch.no_grad():
        assert model.eval().predict(*batch)[0].seg_logits.data.shape[0] == 5


@pytest.fixture(scope='module')
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('streets')
    make_streets(str(root), num_train=4, num_val=2, num_extra=0, size=(64, 128))
    return root


@pytest.mark.parametrize(
    ('config', 'head'),
    [
        ('hmsa/hrnet18s_ocr_streets', 'SPNetHead'),
        ('cpnet/hrnet18s_streets', 'HANetHead'),
        ('fastfcn/r18_jpu_psp_streets', 'OCRNetHead'),
    ],
)
def test_a_swap_passes_a_dry_run(config, head, streets, tmp_path, monkeypatch, capsys) -> None:
    line = HEADS[head][0]
    line = f'dict(head={line})' if 'hmsa' in config else line
    path = tmp_path / 'child.py'
    path.write_text(
        f'_base_ = [{str(CONFIG_DIR / config)!r} + ".py"]\nmodel = dict(decode_head={line})\n'
    )
    command = f'train.py {path} --data-root {streets} --crop-size 64 128 --dry-run'
    options = ['train_dataloader.batch_size=2']
    forget_visualizers()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', [*command.split(), '--cfg-options', *options])
    runpy.run_path(str(CONFIG_DIR.parent / 'tools/train.py'), run_name='__main__')
    assert 'dry run: one training batch' in capsys.readouterr().out
