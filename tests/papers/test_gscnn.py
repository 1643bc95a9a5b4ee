"""Gated-SCNN: edges of images and labels, gates, the head against the released form, refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.models.losses import BoundaryLoss
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.convert import convert
from mmseg_ext.papers.gscnn import BalancedEdgeLoss, GatedConv, class_edges
from mmseg_ext.papers.gscnn.canny import canny, canny_by_opencv, canny_on_device
from mmseg_ext.papers.gscnn.segmentor import wrapped_bytes
from tests.oracles.gscnn import class_edges_released, head_released
from tests.test_swap import BASES, PLAIN, shrunk, trains_predicts_and_explains
from tests.tiny import CONFIG_DIR, build, make_batch, tiny, total_loss

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    # from the start: a loss that switches on where edges are found rises as they are
    'GSCNNHead': dict(channels=16, fine_channels=8, shape_channels=(8, 4, 4), edge_threshold=0.0),
    'StemResNet': dict(base_channels=8, stem_channels=8, zero_init_residual=False),
    'WiderResNetA2': dict(base_channels=4),
}

K = 5
LEVELS = dict(in_channels=[8, 8, 16, 32, 64], in_index=[0, 1, 2, 3, 4])
BACKBONE = dict(type='StemResNet', depth=18, base_channels=8, stem_channels=8)
HEAD = dict(channels=16, fine_channels=8, shape_channels=(8, 4, 4), **LEVELS)
NORMALISE = dict(
    type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
)


def gscnn(head: dict | None = None, **kwargs: Any) -> nn.Module:
    return build(
        dict(
            type='GSCNN',
            backbone=BACKBONE,
            decode_head=dict(HEAD, type='GSCNNHead', num_classes=K) | (head or {}),
            data_preprocessor=NORMALISE,
            test_cfg=dict(mode='whole'),
        )
        | kwargs
    )


@pytest.fixture(scope='module')
def model() -> nn.Module:
    return gscnn().eval()


# Edges of the image

IMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    'noise': lambda x: x,
    'smooth': lambda x: nn.functional.avg_pool2d(x, 5, 1, 2),
    'ramps': lambda x: 3 * x.cumsum(3).cumsum(2).remainder(90),
    'grey': lambda x: nn.functional.avg_pool2d(x, 3, 1, 1)[:, :1].expand_as(x),
    'flat': lambda x: torch.full_like(x, 7),
}


@pytest.mark.parametrize('kind', IMAGES)
@pytest.mark.parametrize('size', [(3, 57, 83), (1, 33, 20), (4, 16, 16), (3, 1, 9), (3, 8, 1)])
def test_edges_on_a_device_are_opencvs_pixel_for_pixel(kind: str, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    images = IMAGES[kind](torch.randint(0, 256, (2, *size)).float()).clamp(0, 255).byte()
    for thresholds in ((10, 100), (60, 60), (0, 300)):
        edges = canny_on_device(images, *thresholds)
        assert torch.equal(edges, canny_by_opencv(images, *thresholds))
        assert torch.equal(edges, canny(images, *thresholds))


def test_values_wrap_around_as_the_released_cast_does() -> None:
    values = torch.tensor([-0.7, -1.5, -2.1, 1.9, 2.6, 0.0])
    assert wrapped_bytes(values).tolist() == [0, 255, 254, 1, 2, 0]


def test_edges_are_those_of_the_image_as_loaded(model: nn.Module) -> None:
    torch.manual_seed(0)
    images = nn.functional.avg_pool2d(torch.rand(2, 3, 40, 60) * 255, 3, 1, 1).byte()
    normalised = model.data_preprocessor(dict(inputs=list(images)))['inputs']
    expected = canny(images, 10, 100)
    assert expected.any() and torch.equal(model.image_edges(normalised) > 0, expected)
    assert not torch.equal(gscnn(canny_input='wrapped').image_edges(normalised) > 0, expected)
    assert gscnn(canny_value=255.0).image_edges(normalised).unique().tolist() == [0, 255]


def test_grey_models_have_edges_too() -> None:
    model = gscnn(
        backbone=dict(BACKBONE, in_channels=1),
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[120.0], std=[60.0]),
    )
    images, samples = make_batch(model)
    grey = images.mean(1, keepdim=True)
    total_loss(model.train(), (grey, samples)).backward()
    assert model.eval().predict(grey)[0].seg_logits.data.shape == (K, 65, 97)


# Edges of the label


@pytest.mark.parametrize('radius', [1, 2, 3, 5])
@pytest.mark.parametrize('skip', [False, True])
def test_edges_of_labels_are_those_of_distance_transforms(radius: int, skip: bool) -> None:
    rng = np.random.default_rng(0)
    blocks = rng.choice([0, 1, 2, 3, 255], (2, 6, 7)).astype(np.uint8)
    maps = [np.kron(blocks, np.ones((4, 5), np.uint8)), rng.choice([0, 1, 255], (2, 9, 11))]
    maps += [np.full((1, 12, 13), value) for value in (0, 1, 255)]
    for label in maps:
        label = torch.from_numpy(label)
        options = dict(radius=radius, skip_class0=skip)
        expected = class_edges_released(label, 4, **options)
        assert torch.equal(class_edges(label, 4, **options), expected)


def test_one_class_has_edges_at_the_frame_alone_and_void_none() -> None:
    frame = class_edges(torch.ones(1, 9, 12, dtype=torch.long), 3)
    assert frame.sum() == 9 * 12 - 5 * 8
    assert not class_edges(torch.full((1, 9, 12), 255), 3).any()
    assert not class_edges(torch.zeros(1, 9, 12), 3, skip_class0=True).any()


def test_many_classes_are_told_apart() -> None:
    label = torch.tensor([[[299, 299, 299, 299, 299, 299, 43, 43, 43, 43, 43, 43]]]).expand(
        1, 9, 12
    )
    assert torch.equal(class_edges(label, 300), class_edges((label == 43).long(), 2))


def test_edge_loss_is_the_hosts_in_float32() -> None:
    logits, target = torch.randn(2, 1, 9, 14), torch.rand(2, 1, 9, 14) > 0.8
    expected = BoundaryLoss(loss_weight=20.0)(logits, target.float())
    torch.testing.assert_close(BalancedEdgeLoss()(logits, target), expected)
    expected = BoundaryLoss(loss_weight=20.0)(logits.sigmoid(), target.float())
    torch.testing.assert_close(BalancedEdgeLoss(double_sigmoid=True)(logits, target), expected)
    assert BalancedEdgeLoss()(logits.bfloat16(), target).dtype == torch.float32


@pytest.mark.parametrize('value', [False, True])
def test_edge_loss_is_zero_where_all_pixels_are_alike(value: bool) -> None:
    logits = torch.randn(1, 1, 5, 6, requires_grad=True)
    loss = BalancedEdgeLoss()(logits, torch.full((1, 1, 5, 6), value))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


# Network


@torch.no_grad()
def test_a_gate_without_weights_is_the_same_everywhere() -> None:
    gated = GatedConv(6, 6, norm_cfg=dict(type='BN')).eval()
    gated.squeeze.weight.zero_()
    gated.norm_gate.bias.fill_(0.3)
    x = torch.randn(2, 6, 8, 9)
    gate = gated.gate(x, torch.randn(2, 1, 8, 9))
    torch.testing.assert_close(gate, torch.full_like(gate, 0.3).sigmoid())
    torch.testing.assert_close(gated(x, gate), gated.conv(x) * (1 + torch.tensor(0.3).sigmoid()))


@torch.no_grad()
def test_gates_start_as_one_convolution_of_features_and_side_map() -> None:
    model = gscnn(head=dict(shape_channels=(32, 16, 8)))  # as in the paper
    for channels, gated in zip((32, 16, 8), model.decode_head.shape.gated, strict=True):
        bound = (channels + 1) ** -0.5
        features, side = gated.mix_features, gated.mix_side
        for slice_ in (features.weight, features.bias, side.weight):
            assert 0.6 * bound < slice_.abs().max() <= bound
        squares = torch.zeros(2)
        for _ in range(300):
            gated.init_weights()
            squares += torch.stack([x.weight.square().sum() for x in (side, features)])
        share = squares[0] / squares.sum()  # of the variance, because the norms give both 1
        torch.testing.assert_close(share, torch.tensor(1 / (channels + 1)), rtol=0.1, atol=0)


@pytest.mark.parametrize('training', [False, True])
def test_the_head_is_the_concatenating_form(training: bool) -> None:
    model = gscnn().train(training)
    images, _ = make_batch(model, size=(48, 80))
    levels = [x.detach().requires_grad_() for x in model.extract_feat(images)]
    head, results = model.decode_head, []
    weights = [p for p in head.parameters() if p.requires_grad]
    for form in (head.run, lambda x: head_released(head, x)):
        maps = form(levels)
        total = sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in maps)
        results.append((maps, torch.autograd.grad(total, [*levels[:-1], *weights])))
    (maps, grads), (expected, expected_grads) = results
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        assert (ours - theirs).abs().max() <= 1e-3 * max(theirs.abs().max(), 1)


@torch.no_grad()
def test_what_the_pyramid_sees_of_edges() -> None:
    model = gscnn().eval()
    images, _ = make_batch(model)
    *levels, edges = model.extract_feat(images)
    head = model.decode_head
    logits, _ = head.run([*levels, edges])
    assert not torch.allclose(head.run([*levels, 1 - edges])[0], logits)
    head.conv_attention.weight[:, 1] = 0
    torch.testing.assert_close(head.run([*levels, 1 - edges]), head.run([*levels, edges]))
    nothing = torch.zeros(1, 1, 4, 4)
    assert head.attend(nothing, nothing).unique().tolist() == [0.5]


def test_losses_can_be_left_out_one_by_one() -> None:
    keys = {f'decode.{key}' for key in (*PLAIN, 'loss_edge', 'loss_att', 'loss_dual')}
    model = gscnn()
    assert set(model.loss(*make_batch(model))) == keys
    for name in ('loss_edge', 'loss_att', 'loss_dual'):
        model = gscnn(head={name: None})
        assert set(model.loss(*make_batch(model))) == keys - {f'decode.{name}'}


def test_attention_counts_the_pixels_of_predicted_edges_alone() -> None:
    model = gscnn().train()
    images, samples = make_batch(model)
    head = model.decode_head
    logits, edge = head(model.extract_feat(images))
    sure = torch.full_like(edge, 9.0)
    everywhere, nowhere = (head.loss_by_feat((logits, x), samples) for x in (sure, -sure))
    torch.testing.assert_close(everywhere['loss_att'], everywhere['loss_ce'])
    assert nowhere['loss_att'] == 0 and nowhere['loss_att'].requires_grad


@pytest.mark.parametrize('value', [0, 3, 255])
def test_labels_of_one_class_or_none_train(value: int) -> None:
    model = gscnn().train()
    images, samples = make_batch(model)
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.full((1, 65, 97), value))
    losses = model.loss(images, samples)
    assert (losses['decode.loss_edge'] == 0) == (value == 255)
    total = sum(v for k, v in losses.items() if 'loss' in k)
    total.backward()
    assert total.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_windows_find_the_edges_inside_of_them(model: nn.Module) -> None:
    images, _ = make_batch(model, size=(64, 150), count=1)
    model.test_cfg = ConfigDict(mode='slide', crop_size=(64, 96), stride=(64, 54))
    result = model.predict(images)[0].seg_logits.data
    model.test_cfg = ConfigDict(mode='whole')
    left = model.predict(images[..., :96])[0].seg_logits.data
    torch.testing.assert_close(result[..., :54], left[..., :54])


@torch.no_grad()
def test_compiles_and_exports(model: nn.Module) -> None:
    images, _ = make_batch(model, size=(64, 96))
    expected = model(images)
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(images), expected, rtol=1e-4, atol=1e-5)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), expected, rtol=1e-4, atol=1e-5)


KEYS = PLAIN | {'loss_edge', 'loss_att', 'loss_dual'}


@pytest.mark.parametrize('base', BASES, ids=lambda path: path.stem)
def test_it_stands_on_every_base(base: Path, tmp_path: Path) -> None:
    head = "dict(type='GSCNNHead')"
    cfg = shrunk(base, f"dict(type='GSCNN', decode_head={head})", tmp_path)
    trains_predicts_and_explains(build(cfg), KEYS)


def test_without_a_shape_stream_it_needs_no_edges_and_any_segmentor(tmp_path: Path) -> None:
    head = "dict(type='GSCNNHead', shape_stream=False)"
    for kind in ('GSCNN', 'WindowedEncoderDecoder'):
        cfg = shrunk(BASES[0], f'dict(type={kind!r}, decode_head={head})', tmp_path)
        model = build(cfg)
        images, samples = make_batch(model)
        assert set(model.loss(images, samples)) == {f'decode.{key}' for key in PLAIN}
        assert model.explain(images) == {}


@torch.no_grad()
def test_explains_stream_gates_and_edges(model: nn.Module) -> None:
    images, samples = make_batch(model)
    maps = model.explain(images, samples)
    steps = [f'{kind}_{i}' for i in (1, 2, 3) for kind in ('side', 'gate', 'shape')]
    assert list(maps) == ['canny', *steps, 'edge', 'attention', 'edge_classes']
    assert maps['shape_1'].shape == (2, 8, 65, 97)
    assert all(maps[f'gate_{i}'].min() >= 0 and maps[f'gate_{i}'].max() <= 1 for i in (1, 2, 3))
    on_edge = maps['edge'] > 0.8
    assert (maps['edge_classes'][~on_edge] == -1).all()
    assert (maps['edge_classes'][on_edge] >= 0).all()


# Weights


def test_the_papers_network_has_the_size_that_the_readme_says() -> None:
    cfg = Config.fromfile(CONFIG_DIR / 'gscnn' / 'wrn38_cityscapes_released.py').model
    with torch.device('meta'):
        count = sum(p.numel() for p in MODELS.build(cfg).parameters())
    assert round(count / 1e6, 2) == 137.28
    assert '| 137.28 M |' in (CONFIG_DIR.parent / 'README.md').read_text()


def test_weights_of_the_unused_layer_are_dropped_and_unknown_ones_named() -> None:
    assert convert('gscnn', {'module.dsn1.weight': torch.zeros(1)}) == {}
    with pytest.raises(ValueError, match='belong to another model: layer1'):
        convert('gscnn', {'layer1.weight': torch.zeros(1)})


@torch.no_grad()
def test_biases_before_norms_go_into_their_means() -> None:
    names = ('weight', 'bias', 'running_mean', 'running_var')
    weights = {f'gate1._gate_conv.0.{name}': torch.rand(5) for name in names}
    weights['dsn3.bias'] = torch.tensor([0.5])
    before = weights['gate1._gate_conv.0.running_mean'].clone()
    ours = convert('gscnn', weights)
    gate = 'decode_head.shape.gated.0'
    torch.testing.assert_close(ours[f'{gate}.norm_side.running_mean'], before[4:] - 0.5)
    torch.testing.assert_close(ours[f'{gate}.norm_features.running_mean'], before[:4])
    assert 'decode_head.shape.sides.0.bias' not in ours


# Refusals


@pytest.mark.parametrize(
    ('head', 'sentence'),
    [
        (dict(in_channels=64, in_index=4), r'reads several levels, got in_channels=64'),
        (dict(in_channels=[8, 16, 32], in_index=[0, 1, 2]), 'give four or five levels'),
        (dict(num_classes=2, out_channels=1, threshold=0.5), 'num_classes=2 and out_channels=2'),
    ],
    ids=str,
)
def test_heads_that_cannot_work_are_refused(head: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        gscnn(head=head)


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(canny_input='raw'), "canny_input='raw' must be 'image' or 'wrapped'"),
        (dict(canny_thresholds=(100, 10)), r'canny_thresholds=\(100, 10\) must be \(low, high\)'),
        (dict(decode_head=[dict(type='FCNHead')] * 2), 'got a cascade'),
        (dict(type='WindowedEncoderDecoder'), "only type='GSCNN' gives"),
    ],
    ids=str,
)
def test_wrong_models_are_refused(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        gscnn(**changes)


def test_a_segmentor_without_edges_is_refused() -> None:
    model = gscnn(type='EncoderDecoder')
    with pytest.raises(ValueError, match="only type='GSCNN' gives"):
        model.loss(*make_batch(model))


def test_a_batch_of_one_image_is_refused_by_batch_norm() -> None:
    model = gscnn().train()
    with pytest.raises(ValueError, match='put two or more images into a batch'):
        model.loss(*make_batch(model, count=1))


def test_plain_and_paper_differ_by_one_argument_on_camvid() -> None:
    ours, plain = (tiny(CONFIG_DIR / 'gscnn' / f'r18_camvid{end}.py') for end in ('', '_plain'))
    extra = ('decode_head.shape.', 'decode_head.conv_attention.', 'decode_head.pyramid.edge_conv.')
    names = {n for n in ours.state_dict() if not n.startswith(extra)}
    assert names == set(plain.state_dict())
