"""Models with folded batch norms against the same models without."""

from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from mmseg.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_ext.errors import UserError
from mmseg_ext.layers.folding import fold_batch_norm
from tests.tiny import CONFIGS, make_batch, nodes, tiny

HOST_BACKBONES = [
    dict(type='BiSeNetV2', norm_cfg=dict(type='BN')),
    dict(type='CGNet', norm_cfg=dict(type='BN')),
    dict(type='DDRNet', channels=8, ppm_channels=16, norm_cfg=dict(type='BN')),
    dict(type='ERFNet', norm_cfg=dict(type='BN')),
    dict(type='FastSCNN', norm_cfg=dict(type='BN')),
    dict(type='MobileNetV3', arch='small', norm_cfg=dict(type='BN')),
    dict(type='MSCAN', embed_dims=[8, 16, 32, 64], depths=[1, 1, 1, 1]),
    dict(type='PIDNet', channels=8, ppm_channels=16, norm_cfg=dict(type='BN')),
    dict(type='ResNeSt', depth=50, radix=2, stem_channels=16, base_channels=16),
    dict(type='ResNet', depth=18, avg_down=True, deep_stem=True, base_channels=8, stem_channels=8),
    dict(type='STDCNet', stdc_type='STDCNet1', channels=(8, 16, 32, 64, 128), in_channels=3,
         bottleneck_type='cat', num_convs=4, norm_cfg=dict(type='BN'),
         act_cfg=dict(type='ReLU')),
    dict(type='UNet', base_channels=8),
]  # fmt: skip


def models_with_all_types() -> list[Path]:
    """Configs whose models together have all types; those with many first."""
    types = {path: {n['type'] for n in nodes(path) if 'type' in n} for path in CONFIGS}
    chosen, missing = [], set().union(*types.values())
    while missing:
        chosen.append(max(CONFIGS, key=lambda path: len(types[path] & missing)))
        missing -= types[chosen[-1]]
    return chosen


@torch.no_grad()
def with_statistics(model: nn.Module) -> nn.Module:
    """The model in eval mode, with batch norms that do something."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for tensor in (module.running_mean, module.bias):
                tensor.normal_(0, 0.2)
            for tensor in (module.running_var, module.weight):
                tensor.uniform_(0.5, 1.5)
    model.double().eval()  # the host's backbones return nothing here
    return model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def assert_near(ours, expected) -> None:
    if isinstance(expected, torch.Tensor):
        assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
        return
    for a, b in zip(ours, expected, strict=True):
        assert_near(a, b)


@pytest.mark.parametrize(
    'path', models_with_all_types(), ids=lambda path: f'{path.parent.name}/{path.stem}'
)
@torch.no_grad()
def test_models_of_the_configs(path):
    model = with_statistics(tiny(path))
    images, samples = make_batch(model, size=(64, 64))
    metas = [sample.metainfo for sample in samples]
    images = images.double()
    before = norms(model)
    expected = fold_batch_norm(model, lambda: model.encode_decode(images, metas))
    ours = model.encode_decode(images, metas)
    assert norms(model) < before or before == 0  # Swin and ConvNeXt have layer norms only
    assert_near(ours, expected)


@pytest.mark.parametrize('cfg', HOST_BACKBONES, ids=lambda cfg: cfg['type'])
@torch.no_grad()
def test_backbones_of_the_host(cfg):
    torch.manual_seed(0)
    model = with_statistics(MODELS.build(dict(cfg)))
    x = torch.randn(1, 3, 64, 64).double()
    before = norms(model)
    expected = fold_batch_norm(model, lambda: model(x))
    assert norms(model) < before
    assert_near(model(x), expected)


class Block(nn.Module):
    """Convolutions and norms that look alike to a reader of their order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)  # folds
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)  # its sum with another does
        self.conv3, self.norm3 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)  # its result has two uses
        self.conv4, self.norm4 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)  # norm before convolution
        self.conv5, self.norm5 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)  # a second input of the norm
        self.conv6, self.norm6 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)  # its weight has two uses

    def forward(self, x):
        x = self.norm1(self.conv1(x))
        x = self.norm2(self.conv2(x) + x)
        y = self.conv3(x)
        x = self.norm3(y) + y
        x = self.conv4(self.norm4(x))
        x = self.norm5(x) + self.norm5(self.conv5(x))
        return self.norm6(self.conv6(x)) * self.conv6.weight.sum()


def test_only_what_goes_to_one_norm_alone_is_folded():
    torch.manual_seed(0)
    model, x = with_statistics(Block()), torch.randn(1, 3, 4, 4).double()
    expected = fold_batch_norm(model, lambda: model(x))
    assert_near(model(x), expected)
    kinds = [type(getattr(model, f'norm{i}')) for i in range(1, 7)]
    assert kinds == [nn.Identity] + [nn.BatchNorm2d] * 5


def test_a_folded_model_refuses_to_train():
    model = with_statistics(Block())
    fold_batch_norm(model, lambda: model(torch.randn(1, 3, 4, 4).double()))
    model.eval()
    with pytest.raises(UserError, match='so it cannot train: load it by'):
        model.train()
    with pytest.raises(UserError, match='load them before its first prediction'):
        load_state_dict(model, Block().state_dict())
