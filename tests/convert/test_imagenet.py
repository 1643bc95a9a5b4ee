"""Released weights for ImageNet, from which recipes start, become whole backbones."""

import re
from collections.abc import Callable

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.convert import convert
from tests.tiny import CONFIG_DIR

CLASSIFIER = {'fc.weight': torch.zeros(1000, 8), 'fc.bias': torch.zeros(1000)}


def deep_stem(name: str, *, numbered: bool) -> str:
    """Name of a deep-stem ResNet: ``conv1.3`` as in PyTorch-Encoding, or ``conv2`` as in CSAIL."""

    def layer(match: re.Match) -> str:
        position = int(match[1])
        if numbered:
            return 'bn1.' if position == 7 else f'conv1.{position}.'
        return f'{"bn" if position % 3 else "conv"}{position // 3 + 1}.'

    return re.sub(r'stem\.(\d)\.', layer, name)


def wider_resnet(name: str, *, norm: str) -> str:
    name = re.sub(r'^conv1\.', 'mod1.conv1.', name)
    name = re.sub(r'(mod\d)\.(\d)\.', lambda m: f'{m[1]}.block{int(m[2]) + 1}.', name)
    name = re.sub(r'norms\.0\.', f'bn1.{norm}', name)
    name = re.sub(r'norms\.(\d)\.', lambda m: f'convs.bn{int(m[1]) + 1}.{norm}', name)
    name = re.sub(r'convs\.(\d)\.', lambda m: f'convs.conv{int(m[1]) + 1}.', name)
    return name.replace('project.', 'proj_conv.')


FILES: list[tuple[str, str, Callable[[str], str], dict[str, Tensor]]] = [
    ('fastfcn', 'r50_jpu_encnet_ade20k', lambda n: deep_stem(n, numbered=True), CLASSIFIER),
    ('spnet', 'r101_cityscapes', lambda n: deep_stem(n, numbered=True), CLASSIFIER),
    (
        'hanet',
        'r101_deeplabv3plus_cityscapes',
        lambda n: deep_stem(n, numbered=False),
        CLASSIFIER,
    ),
    (
        'pixel_contrast',
        'r101_deeplabv3_cityscapes',
        lambda n: deep_stem(n, numbered=False),
        CLASSIFIER,
    ),
    *(
        (
            'gscnn',
            'wrn38_cityscapes',
            lambda n, norm=norm: wider_resnet(n, norm=norm),
            {f'{prefix}fc.weight': torch.zeros(1), f'bn_out.{norm}weight': torch.zeros(1)},
        )
        for norm, prefix in (('', ''), ('0.', 'classifier.'))
    ),
    (
        'oneformer',
        'convnext_l_cityscapes',
        lambda n: n,
        {'norm.weight': torch.zeros(1), 'head.weight': torch.zeros(1)},
    ),
]


@pytest.mark.parametrize(
    ('paper', 'config', 'released_name', 'classifier'),
    FILES,
    ids=[
        *('fastfcn', 'spnet', 'hanet', 'pixel_contrast', 'gscnn', 'gscnn with activations'),
        'oneformer',
    ],
)
def test_a_file_for_imagenet_fills_the_backbone(
    paper: str,
    config: str,
    released_name: Callable[[str], str],
    classifier: dict[str, Tensor],
) -> None:
    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIG_DIR / paper / f'{config}.py')
    with torch.device('meta'):
        backbone: nn.Module = MODELS.build(cfg.model.backbone)
    expected = {n: x.shape for n, x in backbone.state_dict().items() if '.spm.' not in n}
    file = {
        f'module.{released_name(name)}': torch.empty(shape, device='meta')
        for name, shape in expected.items()
    }
    assert len(file) == len(expected)
    converted = convert(paper, file | {f'module.{n}': x for n, x in classifier.items()})
    shapes = {name.removeprefix('backbone.'): x.shape for name, x in converted.items()}
    assert shapes == expected


def test_names_of_torchvision_are_those_of_the_hosts_resnet() -> None:
    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIG_DIR / 'danet/r101_cityscapes.py')
    with torch.device('meta'):
        names = MODELS.build(cfg.model.backbone).state_dict().keys()
    ours = {n for n in names if not n.endswith('num_batches_tracked')}
    blocks = (3, 4, 23, 3)
    norm = [f'{{}}.{k}' for k in ('weight', 'bias', 'running_mean', 'running_var')]
    expected = {'conv1.weight', *(n.format('bn1') for n in norm)}
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            prefix = f'layer{stage}.{block}.'
            for i in (1, 2, 3):
                expected |= {f'{prefix}conv{i}.weight', *(n.format(f'{prefix}bn{i}') for n in norm)}
            if block == 0:
                expected |= {f'{prefix}downsample.0.weight'}
                expected |= {n.format(f'{prefix}downsample.1') for n in norm}
    assert ours == expected
