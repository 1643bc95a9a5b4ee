import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmseg_ext.engine import Bf16OptimWrapper, set_amp


def config(**optim_wrapper) -> Config:
    return Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0), **optim_wrapper)))


@pytest.fixture(params=[False, True])
def gpu(request, monkeypatch) -> bool:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: request.param)
    return request.param


def test_the_default_follows_the_device(gpu):
    cfg = config(type='OptimWrapper')
    set_amp(cfg)
    assert cfg.optim_wrapper.type == ('AmpOptimWrapper' if gpu else 'Bf16OptimWrapper')
    assert cfg.optim_wrapper.get('dtype') == ('float16' if gpu else None)


def test_bf16_replaces_fp16_and_its_loss_scale(gpu):
    cfg = config(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16', clip_grad=dict(a=1))
    set_amp(cfg, 'bf16')
    assert set(cfg.optim_wrapper) == {'optimizer', 'type', 'clip_grad'}
    assert cfg.optim_wrapper.type == 'Bf16OptimWrapper'


def test_fp16_needs_a_gpu(gpu):
    if gpu:
        set_amp(config(), 'fp16')
    else:
        with pytest.raises(ValueError, match='--amp fp16 needs a GPU'):
            set_amp(config(), 'fp16')


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match='int8'):
        set_amp(config(), 'int8')
    with pytest.raises(ValueError, match='MyWrapper'):
        set_amp(config(type='MyWrapper'), 'bf16')


def test_the_forward_pass_is_bf16_and_the_weights_stay_float32():
    model = nn.Linear(3, 2)
    wrapper = Bf16OptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        output = model(torch.randn(4, 3))
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().square().mean())
    assert model.weight.dtype == torch.float32 and not model.weight.equal(before)
