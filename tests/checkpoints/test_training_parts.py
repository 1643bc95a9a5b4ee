"""A checkpoint may lack, or have, the parts that only training needs."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_ext.benchmark.model_costs import trace_operations
from mmseg_ext.checkpoints.fit import check_weights, load_and_compare
from mmseg_ext.errors import UserError
from mmseg_ext.inference.predictor import Predictor, load_model
from mmseg_ext.segmentors.protocols import training_parts_of
from tests.tiny import CONFIG_DIR, shrink, tiny

# A config for each kind of part, and the parts.
PARTS = {
    'cpnet/r101_cityscapes': ['auxiliary_head'],
    'danet/hrnet18s_camvid': ['decode_head.pam_conv_seg', 'decode_head.cam_conv_seg'],
    'dsrl/hrnet18s_camvid': ['sisr', 'fa_transform'],
    'fastfcn/r50_jpu_encnet_ade20k': ['auxiliary_head', 'decode_head.se_layer'],
    'fcn/hrnet18s_camvid': [],
    'gscnn/r18_camvid': [],
    'hanet/hrnet18s_camvid': [],
    'hmsa/hrnet18s_ocr_camvid': [],
    'magnet/hrnet18s_ocr_camvid': [],
    'oneformer/efflite0_camvid': ['decode_head.text_branch', 'decode_head.criterion'],
    'pixel_contrast/hrnet18s_camvid_memory': ['decode_head.projection', 'decode_head.bank'],
    'panet/panet_efflite0_streets_instance': [],
    'pssl/efflite_fpn_camvid': [],
    'spnet/hrnet18s_camvid': [],
}


# Softmax cancels this bias of OneFormer's keys; checkpoints have it.
CANCELLED = 'decode_head.mask_decoder.query_transformer.conv.bias'


class HasModel:
    def __init__(self, model: nn.Module) -> None:
        self.model = model


def test_every_paper_is_here() -> None:
    papers = {path.parent.name for path in CONFIG_DIR.glob('[!_]*/*.py')}
    assert papers == {name.split('/')[0] for name in PARTS}


@pytest.mark.parametrize('name', PARTS)
@torch.no_grad()
def test_the_declared_parts_are_those_that_a_prediction_does_not_read(
    name: str, tmp_path: Path
) -> None:
    model = tiny(CONFIG_DIR / f'{name}.py').eval()
    declared = training_parts_of(model)
    sample = SegDataSample(
        metainfo=dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (64, 64))
    )
    trace = trace_operations(lambda: model.predict(torch.zeros(1, 3, 64, 64), [sample]))
    state = dict(model.named_parameters())
    unread = {name for name, parameter in state.items() if not trace.reads(parameter)}
    unread.discard(CANCELLED)
    assert unread == {name for name in state if name.startswith(declared)}
    assert all(any(n.startswith(f'{part}.') for n in model.state_dict()) for part in PARTS[name])

    # without these parts the checkpoint predicts, but resumes no training
    weights = {n: x for n, x in model.state_dict().items() if not n.startswith(declared)}
    torch.save(dict(state_dict=weights), tmp_path / 'x.pth')
    runner = HasModel(model)
    check_weights(runner, str(tmp_path / 'x.pth'), strict=True, not_needed=declared)
    if PARTS[name] and not name.startswith('dsrl'):  # DSRL also loads them by itself
        with pytest.raises(UserError, match='x.pth is a checkpoint of another model'):
            check_weights(runner, str(tmp_path / 'x.pth'), strict=True)
    del weights[next(n for n in weights if n.endswith('.weight'))]
    torch.save(dict(state_dict=weights), tmp_path / 'x.pth')
    with pytest.raises(UserError, match='x.pth is a checkpoint of another model'):
        check_weights(runner, str(tmp_path / 'x.pth'), strict=True, not_needed=declared)


def test_a_memory_of_another_size_and_a_superfluous_head_do_not_matter() -> None:
    path = CONFIG_DIR / 'pixel_contrast/hrnet18s_camvid_memory.py'
    model = tiny(path)
    names = {'decode_head.bank.rows': (5, 8), 'auxiliary_head.conv_seg.bias': (11,)}
    state = model.state_dict() | {name: torch.zeros(shape) for name, shape in names.items()}
    fit = load_and_compare(model, state)
    assert fit.other_shape and fit.unexpected == ['auxiliary_head.conv_seg.bias']
    assert not str(fit.without(training_parts_of(model)))


def test_plain_weights_predict_in_hmsa_with_one_scale_only() -> None:
    path = CONFIG_DIR / 'hmsa/hrnet18s_ocr_camvid.py'
    plain = tiny(CONFIG_DIR / 'hmsa/hrnet18s_ocr_camvid_plain.py').state_dict()
    single, several = tiny(path, test_scales=(1.0,)), tiny(path)
    for model, refused in ((single, False), (several, True)):
        fit = load_and_compare(model, plain).without(training_parts_of(model))
        assert bool(str(fit)) is refused
    attention = ConfigDict(single.state_dict()).keys() - plain.keys()
    assert any('scale_attn' in name for name in attention)


def test_plain_weights_are_loaded_by_a_contrast_but_not_explained(tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIG_DIR / 'pixel_contrast/hrnet18s_camvid_memory.py')
    cfg.model = ConfigDict(shrink(cfg.model.to_dict()))
    plain = tiny(CONFIG_DIR / 'fcn/hrnet18s_camvid.py').eval()
    path = tmp_path / 'plain.pth'
    # the same layers, in a model without contrast
    inner = {
        name.replace('decode_head.head.', 'decode_head.'): tensor
        for name, tensor in tiny(CONFIG_DIR / 'pixel_contrast/hrnet18s_camvid.py')
        .state_dict()
        .items()
        if 'projection' not in name
    }
    assert inner.keys() == plain.state_dict().keys()
    torch.save(dict(state_dict=inner), path)
    model, _ = load_model(cfg, path)
    torch.testing.assert_close(
        model.state_dict()['decode_head.head.conv_seg.weight'], inner['decode_head.conv_seg.weight']
    )
    with pytest.raises(UserError, match='lacks weights that the maps of --explain may need'):
        Predictor(cfg, path, 'cpu', explain=True)


@pytest.mark.parametrize('name', ['hrnet_cityscapes', 'r101_deeplabv3_cityscapes'])
def test_released_weights_without_projection_fit_the_baseline_and_both_contrasts(name: str) -> None:
    folder = CONFIG_DIR / 'pixel_contrast'
    plain = tiny(folder / f'{name}_plain.py')
    state = plain.state_dict()
    for contrast in (name, f'{name}_memory'):
        model = tiny(folder / f'{contrast}.py')
        fit = load_and_compare(model, state)
        assert any(n.startswith('decode_head.projection.') for n in fit.missing)
        assert not str(fit.without(training_parts_of(model)))
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(x), plain.eval()(x), rtol=0, atol=0)
