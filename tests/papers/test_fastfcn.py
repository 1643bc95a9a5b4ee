"""Properties of FastFCN: its necks, the lean encoding, what only training needs, its refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.convert import convert
from mmseg_ext.papers.fastfcn import LeanEncoding, class_presence
from tests.oracles.fastfcn import assignment_released, encoding_released, presence_released
from tests.tiny import CONFIG_DIR, build, tiny

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'FastFCNJPU': dict(mid_channels=8),
    'FastFCNEncHead': dict(channels=16, num_codes=8),
    'FastFCNASPPHead': dict(channels=16),
}

RECIPES = sorted(path for n in (50, 101) for path in (CONFIG_DIR / 'fastfcn').glob(f'r{n}_*.py'))
WIDTHS = (6, 8, 10)
NECKS = {
    'FastFCNJPU': dict(type='FastFCNJPU', in_channels=WIDTHS, mid_channels=4),
    'JPUX': dict(type='JPUX', in_channels=WIDTHS, mid_channels=128),
}
assert RECIPES


def neck(kind: str, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(NECKS[kind] | changes).eval()


def levels(*sizes: tuple[int, int]) -> list[Tensor]:
    """A level that no neck reads, then those that it reads, of these sizes."""
    generator = torch.Generator().manual_seed(1)
    pairs = zip(WIDTHS, sizes, strict=True)
    read = [torch.randn(2, c, *size, generator=generator) for c, size in pairs]
    return [torch.zeros(2, 3, 1, 1), *read]


def enc_head(**changes: Any) -> nn.Module:
    small = dict(type='FastFCNEncHead', in_channels=8, channels=8, num_codes=4, num_classes=5)
    return build(small | changes)


def samples(label: Tensor) -> list[SegDataSample]:
    return [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in label]


# Necks


@torch.no_grad()
@pytest.mark.parametrize('kind', NECKS)
@pytest.mark.parametrize(
    'sizes',
    [
        [(15, 23), (8, 12), (4, 6)],
        [(1, 30), (1, 15), (1, 8)],
        [(1, 1), (1, 1), (1, 1)],
    ],
    ids=str,
)
def test_the_map_replaces_the_last_level_at_the_size_of_the_finest(kind: str, sizes: list) -> None:
    given = levels(*sizes)
    *kept, merged = neck(kind)(given)
    assert all(a is b for a, b in zip(kept, given[:-1], strict=True))
    assert merged.shape == (2, 4 * NECKS[kind]['mid_channels'], *sizes[0])
    assert merged.isfinite().all()


@torch.no_grad()
def test_the_hosts_neck_is_the_same_function_of_the_same_weights() -> None:
    ours = neck('FastFCNJPU')
    host = MODELS.build(NECKS['FastFCNJPU'] | dict(type='JPU', align_corners=True)).eval()
    host.load_state_dict(ours.state_dict())
    given = levels((15, 23), (8, 12), (4, 6))
    torch.testing.assert_close(ours(given)[-1], host(given[1:])[-1], rtol=0, atol=0)


@torch.no_grad()
def test_a_branch_sees_its_dilation_and_a_pixel_more() -> None:
    module, given = neck('FastFCNJPU'), levels((41, 41), (21, 21), (11, 11))
    before = module(given)[-1]
    given[1][..., 20, 20] += 5
    changed = (module(given)[-1] - before).abs()
    for rate, part in zip((1, 2, 4, 8), changed.chunk(4, dim=1), strict=True):
        rows = part.amax((0, 1, 3)).nonzero().flatten()
        assert (rows[0].item(), rows[-1].item()) == (20 - rate - 1, 20 + rate + 1)


@torch.no_grad()
def test_a_coarsest_level_of_zeros_leaves_the_bias_of_its_norm() -> None:
    module, given = neck('FastFCNJPU'), levels((16, 24), (8, 12), (4, 6))
    given[-1].zero_()
    conv = module.conv_layers[2][0]
    before = module(given)[-1]
    nn.init.normal_(conv.conv.weight)
    torch.testing.assert_close(module(given)[-1], before, rtol=0, atol=0)
    nn.init.ones_(conv.bn.bias)
    assert not torch.allclose(module(given)[-1], before, atol=1e-2)


def test_norms_of_the_second_neck_are_of_groups_in_its_branches_alone() -> None:
    for name, module in neck('JPUX').named_modules():
        if isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
            assert isinstance(module, nn.GroupNorm) == ('branches' in name), name


@torch.no_grad()
@pytest.mark.parametrize('kind', NECKS)
def test_parts_of_the_map_explain_a_neck(kind: str) -> None:
    module, given = neck(kind), levels((16, 24), (8, 12), (4, 6))
    out, maps = module.explain(given)
    torch.testing.assert_close(out[-1], module(given)[-1])
    assert maps.pop('stride_32') is given[-1]
    assert list(maps)[1:] == [f'dilation_{rate}' for rate in (2, 4, 8)]
    torch.testing.assert_close(torch.cat(list(maps.values()), dim=1), out[-1])


@pytest.mark.parametrize('kind', NECKS)
@pytest.mark.parametrize('given', [slice(0, 3), slice(2, None)], ids=['of another', 'too few'])
def test_levels_that_do_not_fit_are_named(kind: str, given: slice) -> None:
    read = levels((16, 24), (8, 12), (4, 6))[given]
    with pytest.raises(ValueError, match=r'expected \(6, 8, 10\): set its in_channels'):
        neck(kind)(read)


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(mid_channels=96), 'mid_channels=96, .* take a multiple of 64'),
        (dict(in_channels=(8, 10)), r'reads three levels, got in_channels=\(8, 10\)'),
    ],
)
def test_widths_that_cannot_be_are_refused(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        neck('JPUX', **changes)


# Encoding


def encoding_inputs(dtype: torch.dtype = torch.float32) -> tuple[LeanEncoding, Tensor]:
    torch.manual_seed(0)
    return LeanEncoding(6, 4).to(dtype), torch.randn(2, 6, 3, 5, dtype=dtype)


def test_lean_encoding_equals_the_released_form() -> None:
    encoding, x = LeanEncoding(64, 8), 0.05 * torch.randn(2, 64, 9, 7)
    results = []
    for form in (encoding, lambda x: encoding_released(x, encoding.codewords, encoding.scale)):
        leaf = x.clone().requires_grad_()
        out = form(leaf)
        wrt = (leaf, encoding.codewords, encoding.scale)
        results.append((out, *torch.autograd.grad(out.square().sum(), wrt)))
    for ours, released in zip(*results, strict=True):
        assert (ours - released).abs().max() < 2e-6 * released.abs().max()


def test_gradients_of_the_encoding_are_right() -> None:
    encoding, x = encoding_inputs(torch.float64)
    weights = dict(encoding.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(weights, values, strict=True))
        return torch.func.functional_call(encoding, named, (x,))

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *weights.values()))


@torch.no_grad()
def test_every_pixel_is_shared_out_among_the_codes() -> None:
    encoding, x = encoding_inputs()
    pixels = x.flatten(2).mT
    weights = encoding.assign(pixels)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 15))
    moved = (weights.sum(1)[..., None] * encoding.codewords).sum(1)
    torch.testing.assert_close(encoding(x).sum(1), pixels.sum(1) - moved, rtol=1e-4, atol=1e-5)
    released = assignment_released(x, encoding.codewords, encoding.scale)
    torch.testing.assert_close(weights, released)


@torch.no_grad()
def test_below_zero_scales_prefer_the_nearest_code_and_others_the_farthest() -> None:
    encoding, x = encoding_inputs()
    pixels = x.flatten(2).mT
    distance = torch.cdist(pixels, encoding.codewords.expand(2, -1, -1))
    encoding.scale.fill_(-1)
    assert (encoding.assign(pixels).argmax(2) == distance.argmin(2)).all()
    encoding.scale.fill_(1)
    assert (encoding.assign(pixels).argmax(2) == distance.argmax(2)).all()


@torch.no_grad()
def test_autocast_does_not_reach_the_encoding() -> None:
    encoding, x = encoding_inputs()
    x = x.bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        out = encoding(x)
    torch.testing.assert_close(out, encoding(x.float()), rtol=0, atol=0)


@torch.no_grad()
def test_the_gate_at_most_doubles_a_channel() -> None:
    feats = torch.randn(2, 8, 5, 6)
    gated = enc_head().eval().enc_module(feats.clone())[1]
    assert (gated >= feats.relu()).all() and (gated <= 2 * feats.relu()).all()


# Classes of an image


def test_first_and_last_class_are_counted_and_ignored_pixels_are_not() -> None:
    label = torch.full((3, 4, 5), 255)
    label[0, 0, :2], label[0, 3, 4] = 0, 6
    label[1] = -1
    presence = class_presence(label, 7)
    assert presence.tolist() == [[1, 0, 0, 0, 0, 0, 1], [0] * 7, [0] * 7]
    assert class_presence(label, 7, ignore_index=6)[0].tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_presence_equals_the_released_histogram() -> None:
    label = torch.randint(0, 40, (4, 6, 7), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(class_presence(label, 19), presence_released(label, 19))


def test_an_image_without_labels_still_teaches_that_it_holds_no_class() -> None:
    classes = torch.zeros(2, 5, requires_grad=True)
    loss = enc_head().loss_by_feat(
        (torch.randn(2, 5, 3, 4), classes), samples(torch.full((2, 9, 9), 255))
    )['loss_se']
    torch.testing.assert_close(loss, 0.2 * torch.log(torch.tensor(2.0)))
    loss.backward()
    assert (classes.grad > 0).all()


def test_classes_are_guessed_in_training_alone() -> None:
    head = enc_head()
    runs: list[bool] = []
    head.se_layer.register_forward_hook(lambda *_: runs.append(head.training))
    x = [torch.randn(2, 8, 5, 6)]
    logits, classes = head.train()(x)
    assert (logits.shape, classes.shape) == ((2, 5, 5, 6), (2, 5))
    assert isinstance(head.eval()(x), Tensor)
    assert runs == [True]


def test_without_their_loss_no_layer_guesses_classes() -> None:
    head = enc_head(se_weight=0).train()
    losses = head.loss([torch.randn(2, 8, 5, 6)], samples(torch.zeros(2, 9, 9).long()), {})
    assert set(losses) == {'loss_ce', 'acc_seg'}
    assert not any('se_layer' in name for name in head.state_dict())


@torch.no_grad()
def test_the_head_explains_its_codes_gates_and_classes() -> None:
    head, x = enc_head().eval(), torch.randn(2, 8, 5, 6)
    maps = head.explain([x])
    shapes = {name: tuple(values.shape) for name, values in maps.items()}
    assert shapes == dict(code=(2, 1, 5, 6), gate=(2, 8, 1, 1), class_probability=(2, 5, 1, 1))
    feats = head.bottleneck(x)
    gated = head.conv_seg((feats * (1 + maps['gate'])).relu())
    torch.testing.assert_close(gated, head([x]))
    encoding = head.enc_module.encoding[0]
    released = assignment_released(
        head.enc_module.encoding_project(feats), encoding.codewords, encoding.scale
    )
    assert (maps['code'].flatten(1) == released.argmax(2)).all()


# Recipes


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_recipes_train_new_layers_ten_times_faster(path: Path) -> None:
    cfg = Config.fromfile(path)
    model = tiny(path)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    names = [name for name, _ in model.named_parameters()]
    rates = {names[i].split('.')[0]: group['lr'] for i, group in enumerate(groups)}
    rate = 0.001 if 'context' in path.stem or 'trainval' in path.stem else 0.01
    rest = dict.fromkeys(('neck', 'decode_head', 'auxiliary_head'), pytest.approx(10 * rate))
    assert rates == dict(backbone=rate, **rest)
    weight = model.auxiliary_head.loss_decode.loss_weight
    assert weight == (0.2 if 'encnet' in path.stem else 0.4)
    for part in (model.neck, model.decode_head, model.auxiliary_head):
        assert part.align_corners
    for part in (model.decode_head, model.auxiliary_head):
        assert part.loss_decode.avg_non_ignore


def test_the_backbone_is_deep_stemmed_and_undilated() -> None:
    cfg = Config.fromfile(RECIPES[0]).model.backbone
    backbone = MODELS.build(cfg | dict(norm_cfg=dict(type='BN')))
    convs = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert [conv.out_channels for conv in convs[:3]] == [64, 64, 128]
    assert {conv.dilation for conv in convs} == {(1, 1)}
    backbone.eval()
    sizes = [tuple(x.shape[2:]) for x in backbone(torch.zeros(1, 3, 64, 96))]
    assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3)]


class NeckAndHead(nn.Module):
    """What comes after a backbone."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.neck = neck(kind)
        self.head = enc_head(in_channels=4 * NECKS[kind]['mid_channels']).eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.head(self.neck(inputs))


@torch.no_grad()
@pytest.mark.parametrize('kind', NECKS)
def test_compiles_and_exports(kind: str) -> None:
    module, given = NeckAndHead(kind), levels((15, 23), (8, 12), (4, 6))
    expected = module(*given)
    compiled = torch.compile(module, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(*given), expected, rtol=1e-4, atol=1e-5)
    exported = torch.export.export(module, tuple(given)).module()
    torch.testing.assert_close(exported(*given), expected, rtol=1e-4, atol=1e-5)


# Released names


def test_thirds_of_the_necks_channels_are_reversed() -> None:
    old = torch.tensor([0.0, 1, 2]).repeat_interleave(4)
    released = {
        'jpu.dilation2.0.conv1.weight': old.view(12, 1, 1, 1).expand(12, 1, 3, 3),
        'jpu.dilation2.0.bn.running_var': old,
        'jpu.dilation2.0.bn.num_batches_tracked': torch.tensor(7),
        'jpu.dilation2.0.pointwise.weight': old.view(1, 12, 1, 1).expand(4, 12, 1, 1),
        'jpu.dilation2.1.weight': torch.arange(4.0),
    }
    weights = convert('fastfcn', released)
    ours = neck('FastFCNJPU').state_dict(prefix='neck.')
    assert all(x.shape == ours[name].shape for name, x in weights.items())
    depthwise, var, count, pointwise, last = weights.values()
    new = torch.tensor([2.0, 1, 0]).repeat_interleave(4)
    assert (depthwise[:, 0, 0, 0] == new).all() and (pointwise[0, :, 0, 0] == new).all()
    assert (var == new).all() and count == 7 and (last == torch.arange(4)).all()


@torch.no_grad()
def test_the_pooled_image_moves_to_the_front_of_the_pyramid() -> None:
    shared = dict(in_channels=6, channels=4, num_classes=5)
    head = build(dict(type='FastFCNASPPHead', **shared)).eval()
    weight = head.bottleneck[0].conv.weight
    released = weight.roll(-4, 1)
    converted = convert('fastfcn', {'head.aspp.project.0.weight': released})
    torch.testing.assert_close(converted['decode_head.bottleneck.0.conv.weight'], weight)
    x = torch.randn(1, 6, 7, 9)
    pooled = head.image_pool(x).expand(-1, -1, 7, 9)
    last = torch.cat([*head.aspp_modules(x), pooled], dim=1)
    first = torch.cat([pooled, *head.aspp_modules(x)], dim=1)
    torch.testing.assert_close(F.conv2d(last, released), F.conv2d(first, weight))


def test_a_convolutional_head_becomes_the_hosts() -> None:
    host = MODELS.build(
        dict(
            type='FCNHead',
            in_channels=8,
            channels=4,
            num_classes=3,
            num_convs=1,
            concat_input=False,
            norm_cfg=dict(type='BN'),
        )
    )
    released = {'convs.0.conv': 'conv5.0', 'convs.0.bn': 'conv5.1', 'conv_seg': 'conv5.4'}
    weights = {}
    for name, x in host.state_dict().items():
        module, _, kind = name.rpartition('.')
        weights[f'module.head.{released[module]}.{kind}'] = x
    converted = convert('fastfcn', weights)
    host.load_state_dict({n.removeprefix('decode_head.'): x for n, x in converted.items()})


def test_weights_for_imagenet_become_the_backbone() -> None:
    names = ['conv1.6.weight', 'bn1.bias', 'layer4.2.conv3.weight', 'fc.bias']
    ours = {'backbone.stem.6.weight', 'backbone.stem.7.bias', 'backbone.layer4.2.conv3.weight'}
    for prefix in ('', 'pretrained.'):
        assert set(convert('fastfcn', {prefix + name: torch.ones(2) for name in names})) == ours
