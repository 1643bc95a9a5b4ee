"""Properties of SPNet: its gates and where they lie, its head as released, its refusals."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmseg.models.backbones import ResNetV1c
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_ext.convert import convert
from mmseg_ext.papers.spnet import MixedPooling, SPNetHead, SPNetResNet, StripPooling
from tests.oracles.spnet import (
    BENCHMARKS,
    head_released,
    mixed_pooling_released,
    strip_pooling_released,
)
from tests.tiny import CONFIG_DIR, build, make_batch, shrink, tiny

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'SPNetHead': dict(channels=16),
    'SPNetResNet': dict(base_channels=8, stem_channels=8),
}

NARROW = dict(base_channels=8, stem_channels=8)
GATED = {
    50: ['layer1.2', 'layer2.3', 'layer3.5', 'layer4.0', 'layer4.1', 'layer4.2'],
    101: ['layer1.2', 'layer2.3', 'layer3.22', 'layer4.0', 'layer4.1', 'layer4.2'],
}
SIZES = [(24, 60), (40, 60), (26, 41), (4, 5), (1, 7), (7, 1), (1, 1)]


def settled(module: nn.Module) -> nn.Module:
    """In eval mode and float64, its norms with statistics as after training."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
    return module.double().eval()


@pytest.fixture
def gate() -> nn.Module:
    return settled(StripPooling(6))


@pytest.fixture
def pooling() -> nn.Module:
    return settled(MixedPooling(16))


@pytest.fixture(scope='module')
def spnet() -> nn.Module:
    return tiny(CONFIG_DIR / 'spnet' / 'r50_ade20k.py', test_cfg=dict(mode='whole'))


def randn(*size: int) -> Tensor:
    return torch.randn(*size, dtype=torch.float64)


def value_and_gradients(
    form: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor
) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    y = form(x)
    return y.detach(), *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])


# Gates


@torch.no_grad()
def test_gates_depend_on_row_and_column_means_alone(gate: StripPooling) -> None:
    x, noise = randn(2, 6, 7, 9), randn(2, 6, 7, 9)
    noise = noise - noise.mean(2, keepdim=True)
    noise = noise - noise.mean(3, keepdim=True)
    gates = gate.gate(gate.strips(x))
    assert 0 < gates.min() < gates.max() < 1
    torch.testing.assert_close(gate.gate(gate.strips(x + noise)), gates)
    torch.testing.assert_close(gate(x), x * gates, rtol=0, atol=0)
    assert not torch.allclose(gate.gate(gate.strips(x + noise.abs())), gates)


@torch.no_grad()
def test_a_transposed_image_has_transposed_gates(gate: StripPooling) -> None:
    x, other = randn(2, 6, 7, 9), copy.deepcopy(gate)
    down, across = gate.strips.vertical, gate.strips.horizontal
    other.strips.vertical.load_state_dict(
        {k: v.mT if v.ndim == 4 else v for k, v in across.state_dict().items()}
    )
    other.strips.horizontal.load_state_dict(
        {k: v.mT if v.ndim == 4 else v for k, v in down.state_dict().items()}
    )
    torch.testing.assert_close(other(x.mT), gate(x).mT)
    assert not torch.allclose(gate(x.mT), gate(x).mT)


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_gates_equal_the_released_form(gate: StripPooling, size: tuple[int, int]) -> None:
    x = randn(2, 6, *size)
    released = value_and_gradients(lambda x: strip_pooling_released(gate, x), gate, x)
    torch.testing.assert_close(value_and_gradients(gate, gate, x), released)


def test_a_strip_of_one_value_is_refused_in_training(gate: StripPooling) -> None:
    gate.train()
    for size in ((1, 9), (9, 1), (1, 1)):
        with pytest.raises(ValueError, match='strip of one value.*larger crops or more images'):
            gate(randn(1, 6, *size))
        assert gate(randn(2, 6, *size)).isfinite().all()
    gate.strips.eval()  # as with frozen norms
    assert gate(randn(1, 6, 1, 9)).isfinite().all()


# Backbone


@pytest.mark.parametrize('depth', [50, 101])
def test_gates_lie_in_the_last_blocks_and_all_of_the_last_stage(depth: int) -> None:
    backbone = SPNetResNet(depth, **NARROW)
    gates = {n for n, m in backbone.named_modules() if isinstance(m, StripPooling)}
    assert gates == {f'{name}.spm' for name in GATED[depth]}
    for name, block in backbone.gated_blocks():
        planes = 8 * 2 ** (int(name[5]) - 1)
        assert block.spm.conv_gate.in_channels == block.conv2.out_channels == planes
    dilations = [block.conv2.dilation[0] for block in backbone.layer3]
    assert dilations == [1] + [2] * (len(dilations) - 1)
    assert [block.conv2.dilation[0] for block in backbone.layer4] == [4, 8, 16]


def test_a_gate_takes_what_leaves_the_relu_behind_the_3x3() -> None:
    block = SPNetResNet(50, **NARROW).eval().layer4[1]
    seen: list[Tensor] = []
    block.spm.register_forward_hook(lambda _, args, out: seen.extend([args[0], out]))
    block.conv3.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    x = torch.randn(1, 256, 5, 6)
    block(x)
    expected = F.relu(block.norm2(block.conv2(F.relu(block.norm1(block.conv1(x))))))
    torch.testing.assert_close(seen[0], expected)
    assert seen[2] is seen[1]


@torch.no_grad()
@pytest.mark.parametrize('depth', [18, 50])
def test_without_gates_it_is_the_hosts_resnet(depth: int) -> None:
    ours = SPNetResNet(depth, strip_pooling=False, **NARROW)
    host = ResNetV1c(
        depth=depth,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        multi_grid=(4, 8, 16),
        **NARROW,
    )
    host.load_state_dict(ours.state_dict())
    ours.eval(), host.eval()
    x = torch.randn(1, 3, 65, 97)
    levels = ours(x)
    torch.testing.assert_close(levels, host(x), rtol=0, atol=0)
    assert [x.shape[2:] for x in levels] == [(17, 25), (9, 13), (9, 13), (9, 13)]


@torch.no_grad()
def test_open_gates_leave_the_plain_network() -> None:
    gated = SPNetResNet(50, gate_bias=50.0, **NARROW)
    for _, block in gated.gated_blocks():
        nn.init.zeros_(block.spm.conv_gate.weight)
    plain = SPNetResNet(50, strip_pooling=False, **NARROW).eval()
    plain.load_state_dict({n: t for n, t in gated.state_dict().items() if '.spm.' not in n})
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(gated.eval()(x), plain(x))


def test_blocks_without_a_bottleneck_are_refused() -> None:
    with pytest.raises(ValueError, match=r'depth=18\) has no bottlenecks.*strip_pooling=False'):
        SPNetResNet(18)


def test_a_new_backbone_starts_as_released() -> None:
    backbone = SPNetResNet(50, base_channels=16)
    backbone.init_weights()
    assert all(block.norm3.weight.eq(1).all() for block in backbone.layer3)
    for strip in backbone.layer4[0].spm.strips.children():
        assert strip.conv.weight.std().item() == pytest.approx((2 / 3 / 128) ** 0.5, rel=0.05)
    bias = backbone.layer4[0].spm.conv_gate.bias
    assert 0 < bias.abs().max() <= 128**-0.5


def test_frozen_stages_include_their_gates_and_eval_returns_the_backbone() -> None:
    backbone = SPNetResNet(50, frozen_stages=1, **NARROW)
    assert not any(p.requires_grad for p in backbone.layer1.parameters())
    assert all(p.requires_grad for p in backbone.layer2.parameters())
    assert backbone.eval() is backbone


def test_the_hosts_backbones_take_gates_as_plugins() -> None:
    plugin = dict(
        cfg=dict(type='StripPooling', gate_bias=4.0),
        stages=(False, False, False, True),
        position='after_conv2',
    )
    host = MODELS.build(dict(type='ResNet', depth=50, plugins=[plugin], base_channels=8))
    assert [m.spm.gate_bias for m in host.layer4] == [4.0] * 3
    host.eval()
    assert host(torch.randn(1, 3, 32, 32))[3].isfinite().all()


# Mixed pooling and head


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_mixed_pooling_equals_the_released_form(
    pooling: MixedPooling, size: tuple[int, int], align_corners: bool
) -> None:
    pooling.align_corners = align_corners
    x = randn(2, 16, *size)
    released = value_and_gradients(lambda x: mixed_pooling_released(pooling, x), pooling, x)
    torch.testing.assert_close(value_and_gradients(pooling, pooling, x), released)


def test_mixed_pooling_trains_as_the_released_form() -> None:
    """Gradients of all parameters, and running statistics, with the batch's own statistics."""
    ours = MixedPooling(16).double()
    plain, x = copy.deepcopy(ours), randn(2, 16, 24, 60)
    released = value_and_gradients(lambda x: mixed_pooling_released(plain, x), plain, x)
    torch.testing.assert_close(value_and_gradients(ours, ours, x), released)
    for (name, ours_buffer), buffer in zip(ours.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours_buffer, buffer, msg=name)


@torch.no_grad()
def test_mixed_pooling_whose_last_norm_is_zero_is_a_relu(pooling: MixedPooling) -> None:
    norm = pooling.fuse.norm
    nn.init.zeros_(norm.weight), nn.init.zeros_(norm.bias)
    x = randn(1, 16, 9, 12)
    torch.testing.assert_close(pooling(x), F.relu(x), rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize('options', [{}, dict(num_mpm=1, pool_sizes=(6, 3, 1))], ids=str)
def test_head_equals_the_released_form(options: dict) -> None:
    head, x = settled(SPNetHead(64, num_classes=5, **options)), randn(2, 64, 13, 24)
    torch.testing.assert_close(head([x]), head_released(head, x))


@pytest.mark.parametrize(
    ('arguments', 'widths'),
    [
        (dict(in_channels=2048), (1024, 256, 512)),
        (dict(in_channels=320), (160, 40, 80)),
        (dict(in_channels=[18, 36, 72, 144], in_index=[0, 1, 2, 3]), (135, 33, 67)),
        (dict(in_channels=320, channels=128, pool_channels=64), (64, 16, 128)),
    ],
    ids=str,
)
def test_widths_follow_the_input(arguments: dict, widths: tuple) -> None:
    several = not isinstance(arguments['in_channels'], int)
    transform = dict(input_transform='resize_concat') if several else {}
    with torch.device('meta'):
        head = SPNetHead(num_classes=5, **arguments, **transform)
    pooling = head.mixed_pooling[0]
    convs = (head.reduce, pooling.reduce_short, head.bottleneck)
    assert tuple(conv.out_channels for conv in convs) == widths
    assert head.conv_seg.in_channels == widths[2]


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (dict(in_channels=[8, 16], in_index=[0, 1]), r'reads one map, got in_channels=\[8, 16\]'),
        (dict(in_channels=7), 'has 3 channels for its mixed pooling.*needs 4 or more'),
    ],
    ids=str,
)
def test_levels_that_do_not_fit_are_refused(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SPNetHead(num_classes=5, **arguments)


def test_head_starts_from_pytorchs_default() -> None:
    head = SPNetHead(64, num_classes=5)
    head.init_weights()
    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert 0.7 * bound < module.weight.abs().max() <= bound, name


# The whole model


def test_the_auxiliary_head_runs_once_in_training_and_never_else(spnet: nn.Module) -> None:
    model, calls = copy.deepcopy(spnet), []
    model.auxiliary_head.conv_seg.register_forward_hook(lambda *_: calls.append(1))
    images, samples = make_batch(model)
    model.train().loss(images, samples)
    assert len(calls) == 1
    model.eval().predict(images, samples)
    model(images)
    model.explain(images, samples)
    assert len(calls) == 1


@torch.no_grad()
def test_explain_shows_gates_and_paths(spnet: nn.Module) -> None:
    images, samples = make_batch(spnet.eval())
    maps = spnet.explain(images, samples)
    gates = [f'{b}_{what}' for b in GATED[50] for what in ('gate', 'vertical', 'horizontal')]
    assert list(maps) == gates + ['mpm1_short', 'mpm1_long', 'mpm2_short', 'mpm2_long']
    assert maps['layer1.2_gate'].shape == (2, 1, 17, 25)
    assert maps['layer4.2_vertical'].shape == (2, 1, 9, 1)
    assert maps['layer4.2_horizontal'].shape == (2, 1, 1, 13)
    seen: list[Tensor] = []
    backbone = copy.deepcopy(spnet.backbone)
    gate = backbone.layer4[2].spm
    gate.register_forward_hook(lambda _, args, out: seen.extend([args[0], out]))
    backbone(images)
    x, out = seen
    expected = gate.gate(gate.strips(x))
    torch.testing.assert_close(out, x * expected)
    torch.testing.assert_close(maps['layer4.2_gate'], expected.mean(1, keepdim=True))
    for i in (1, 2):
        both = torch.cat([maps[f'mpm{i}_short'], maps[f'mpm{i}_long']], 1)
        assert both.min() >= 0
        torch.testing.assert_close(both.amax((1, 2, 3)), torch.ones(2))


def test_explaining_changes_nothing(spnet: nn.Module) -> None:
    images, _ = make_batch(spnet.eval())
    with torch.no_grad():
        before = spnet(images)
        spnet.explain(images)
        torch.testing.assert_close(spnet(images), before, rtol=0, atol=0)
    assert not any(m._forward_pre_hooks for m in spnet.backbone.modules())


def test_checkpointing_gives_the_same_gradients(spnet: nn.Module) -> None:
    images, samples = make_batch(spnet, size=(32, 48))
    grads = []
    for with_cp in (False, True):
        model = copy.deepcopy(spnet).train()
        model.decode_head.dropout = model.auxiliary_head.dropout = None
        for module in model.backbone.modules():
            if hasattr(module, 'with_cp'):
                module.with_cp = with_cp
        model.loss(images, samples)['decode.loss_ce'].backward()
        grads.append(model.backbone.layer4[0].spm.conv_gate.weight.grad)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-7)


@torch.no_grad()
@pytest.mark.parametrize(
    'part', [StripPooling(16), SPNetHead(16, num_classes=5)], ids=['gate', 'head']
)
def test_compiles_exports_and_takes_channels_last(part: nn.Module) -> None:
    part, x = settled(part), randn(2, 16, 9, 13)
    inputs = x if isinstance(part, StripPooling) else [x]
    expected = part(inputs)
    compiled = torch.compile(part, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(inputs), expected)
    exported = torch.export.export(part, (inputs,)).module()
    torch.testing.assert_close(exported(inputs), expected)
    part = part.to(memory_format=torch.channels_last)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(part(last if inputs is x else [last]), expected)


def test_a_few_pixels_predict_and_two_of_them_train(spnet: nn.Module) -> None:
    model = copy.deepcopy(spnet)
    for size in ((1, 1), (1, 40), (40, 1)):
        images, samples = make_batch(model.eval(), size=size)
        assert model.predict(images)[0].seg_logits.data.isfinite().all()
        losses = model.train().loss(images, samples)
        assert losses['decode.loss_ce'].isfinite()


@pytest.mark.parametrize(
    ('name', 'millions'),
    [('r50_ade20k', 47.84), ('r101_ade20k', 66.83)],
)
def test_the_papers_networks_have_their_sizes(name: str, millions: float) -> None:
    cfg = Config.fromfile(CONFIG_DIR / 'spnet' / f'{name}.py').model
    plain = copy.deepcopy(cfg)
    plain.backbone.strip_pooling = False
    with torch.device('meta'):
        counts = [
            sum(p.numel() for p in MODELS.build(ConfigDict(c)).parameters()) / 1e6
            for c in (cfg, plain)
        ]
    assert counts == pytest.approx([millions, millions - 6.12], abs=0.006)


def test_the_benchmark_multiplies_as_often_as_it_says() -> None:
    shape = next(b.shape for b in BENCHMARKS if 'psp' in b.name)
    kwargs = dict(num_classes=19, norm_cfg=dict(type='BN'))
    with torch.device('meta'):
        ours = SPNetHead(2048, **kwargs)
        theirs = MODELS.build(dict(type='PSPHead', in_channels=2048, channels=512, **kwargs))
        x, giga = torch.randn(2, 2048, 60, 60), []
        for head, times in ((ours, 3), (theirs, 2)):
            with FlopCounterMode(display=False) as counter:
                head.eval()([x])
            giga.append(times * counter.get_total_flops() / 2e9)
    assert shape == f'3 / 2 heads, {giga[0]:.1f} / {giga[1]:.1f} GMAC'


# Recipes


def test_heads_learn_ten_times_as_fast() -> None:
    from mmengine.optim import build_optim_wrapper

    cfg = Config.fromfile(CONFIG_DIR / 'spnet' / 'r50_cityscapes.py')
    model = build(shrink(cfg.model.to_dict()))
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {id(p): group['lr'] for group in groups for p in group['params']}
    for name, p in model.named_parameters():
        assert rates[id(p)] == pytest.approx(0.05 if 'head' in name else 0.005), name


@pytest.mark.parametrize('name', ['r50_cityscapes', 'r50_ade20k'])
def test_training_images_have_the_crops_size_and_borders_of_the_mean(name: str) -> None:
    import numpy as np
    from mmcv.transforms import Compose

    cfg = Config.fromfile(CONFIG_DIR / 'spnet' / f'{name}.py')
    steps = [step for step in cfg.train_pipeline if not step['type'].startswith('Load')]
    np.random.seed(0)
    for _ in range(4):
        image = np.full((60, 90, 3), 7, np.uint8)
        label = np.ones((60, 90), np.uint8)
        results = dict(img=image, gt_seg_map=label, seg_fields=['gt_seg_map'])
        results |= dict(img_shape=(60, 90), ori_shape=(60, 90))
        packed = Compose(steps)(results)
        label = packed['data_samples'].gt_sem_seg.data[0]
        assert packed['inputs'].shape[1:] == label.shape == cfg.crop_size
        assert packed['inputs'][:, label == 1].float().mean() < 20
        assert packed['inputs'][:, -1, -1].tolist() == [104, 116, 124] or label[-1, -1] == 1
        assert 200 < (label == 1).sum() < label.numel()


def test_the_papers_protocol_averages_probabilities_over_windows_flips_and_scales() -> None:
    for name, window in (('r101_cityscapes', 768), ('r50_ade20k', 480)):
        cfg = Config.fromfile(CONFIG_DIR / 'spnet' / f'{name}.py')
        assert cfg.model.test_cfg.crop_size == (window, window)
        assert cfg.model.test_cfg.stride == (window * 2 // 3,) * 2
        assert cfg.tta_model.type == 'SegTTAModel'
        scales, flips, *_ = cfg.tta_pipeline[-1]['transforms']
        assert len(scales) == 6 and [flip['prob'] for flip in flips] == [0.0, 1.0]


# Converter


def imagenet_file(backbone: nn.Module) -> dict[str, Tensor]:
    """The weights of a backbone under the names of PyTorch-Encoding."""
    released = {}
    for name, tensor in backbone.state_dict().items():
        if '.spm.' not in name:
            name = name.replace('stem.7.', 'bn1.').replace('stem.', 'conv1.')
            released[name] = torch.randn(tensor.shape)
    return released | {'fc.weight': torch.ones(2, 2), 'fc.bias': torch.ones(2)}


def test_imagenet_weights_start_a_backbone_whose_gates_start_afresh(tmp_path: Path) -> None:
    backbone = SPNetResNet(50, **NARROW)
    released = imagenet_file(backbone)
    weights = convert('spnet', released)
    assert 'stem.7.weight' in weights and 'conv1.0.weight' not in weights
    torch.save(weights, tmp_path / 'imagenet.pth')
    started = SPNetResNet(
        50,
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'imagenet.pth')),
        gate_bias=4.0,
        **NARROW,
    )
    started.init_weights()
    torch.testing.assert_close(started.stem[0].weight, released['conv1.0.weight'])
    torch.testing.assert_close(started.layer4[2].conv3.weight, released['layer4.2.conv3.weight'])
    assert started.layer4[2].spm.conv_gate.bias.eq(4).all()
    before = {n: t.clone() for n, t in started.state_dict().items() if '.spm.' in n}
    started.load_state_dict(weights, strict=True)
    for name, tensor in before.items():
        torch.testing.assert_close(started.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_whole_models_gates_have_to_be_in_both_file_and_model(spnet: nn.Module) -> None:
    plain = tiny(CONFIG_DIR / 'spnet' / 'r50_ade20k.py', **{'backbone.strip_pooling': False})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*layer1\.2\.spm'):
        plain.load_state_dict(spnet.state_dict())
    with pytest.raises(RuntimeError, match=r'Missing key.*layer1\.2\.spm'):
        copy.deepcopy(spnet).load_state_dict(plain.state_dict())
    incomplete = {n: t for n, t in spnet.backbone.state_dict().items() if 'layer4.0.spm' not in n}
    with pytest.raises(RuntimeError, match=r'Missing key.*layer4\.0\.spm'):
        copy.deepcopy(spnet.backbone).load_state_dict(incomplete)


def test_names_of_another_model_are_listed() -> None:
    with pytest.raises(ValueError, match=r'1 of 2 names .* another model: head\.psp\.weight'):
        convert('spnet', {'head.psp.weight': torch.ones(1), 'bn1.weight': torch.ones(1)})
