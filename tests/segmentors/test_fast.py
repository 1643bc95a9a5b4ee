"""Segmentors that predict faster after their first prediction."""

import copy

import pytest
import torch
from mmseg.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmseg_ext
from mmseg_ext.errors import UserError
from mmseg_ext.segmentors.fast import make_fast
from tests.tiny import CONFIG_DIR, make_batch, tiny


@pytest.fixture
def model() -> nn.Module:
    return tiny(CONFIG_DIR / 'hmsa/hrnet18s_ocr_camvid.py').eval()


def logits_of(model: nn.Module) -> torch.Tensor:
    images, samples = make_batch(model, size=(64, 64))
    return torch.stack([s.seg_logits.data for s in model.predict(images, samples)])


def count_norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


@torch.no_grad()
def test_predictions_stay_and_norms_go(model):
    plain = logits_of(copy.deepcopy(model))
    make_fast(model)
    first, before = logits_of(model), count_norms(model)
    second = logits_of(model)
    torch.testing.assert_close(first, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second, plain, rtol=1e-4, atol=1e-5)
    assert count_norms(model) == before < count_norms(tiny(CONFIG_DIR / 'fcn/hrnet18s_camvid.py'))
    weight = next(p for p in model.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_averaged_predictions_are_fast_too(model):
    augmented = MODELS.build(dict(type='LogitTTAModel', module=model))
    make_fast(model)
    images, samples = make_batch(model, size=(64, 64), count=1)
    batch = dict(inputs=[images, images], data_samples=[samples, copy.deepcopy(samples)])
    before = count_norms(model)
    (result,) = augmented.test_step(batch)
    assert count_norms(model) < before and result.pred_sem_seg.data.shape[-2:] == (64, 64)


@torch.no_grad()
def test_the_network_is_compiled_after_the_first_prediction(model, monkeypatch):
    compiled = []

    def record(function):
        compiled.append(function.__name__)
        return function

    monkeypatch.setattr(torch, 'compile', record)
    make_fast(model, compiled=True)
    logits_of(model)
    logits_of(model)
    assert compiled == ['extract_feat', 'encode_decode']


def test_a_loaded_model_predicts_fast_or_trains(tmp_path):
    image = torch.zeros(48, 64, 3, dtype=torch.uint8).numpy()
    fast = mmseg_ext.load('fcn/hrnet18s_camvid')
    mmseg_ext.predict(fast, image)
    with pytest.raises(UserError, match=r'load it by mmseg_ext.load\(..., fast=False\)'):
        fast.train()
    plain = mmseg_ext.load('fcn/hrnet18s_camvid', fast=False)
    mmseg_ext.predict(plain, image)
    assert plain.train().training and count_norms(plain) > count_norms(fast)
