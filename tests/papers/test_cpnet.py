"""Properties of CPNet: the affinity loss against its plain formula, contexts, sizes, refusals."""

import copy
import math
from typing import Any

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.convert.cpnet import convert, resize_prior
from mmseg_ext.papers.cpnet import AffinityLoss, Aggregation, CPNetHead, affinity_terms, resample
from tests.oracles.cpnet import (
    affinity,
    affinity_loss_released,
    affinity_terms_slow,
    contexts_released,
    label_at,
)

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'CPNetHead': dict(channels=16, prior_channels=8, prior_size=(8, 12), am_kernel_size=5),
}

OPTIONS = [(i, d) for i in ('class', 'mask') for d in ('legacy', 'skip')]
SMALL = dict(in_channels=6, in_index=0, channels=8, prior_channels=4, num_classes=3)


def head(**kwargs: Any) -> CPNetHead:
    torch.manual_seed(0)
    built = CPNetHead(**(SMALL | dict(prior_size=(4, 6), am_kernel_size=3) | kwargs))
    built.init_weights()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.normal_(module.bias, std=0.3)
    return built.eval()


def samples(label: Tensor) -> list[SegDataSample]:
    return [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in label]


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([*terms.values()]).sum()


def make_labels() -> Tensor:
    """Classes beside ignored pixels; all ignored; one class; one class but for a pixel."""
    generator = torch.Generator().manual_seed(2)
    label = torch.randint(0, 3, (4, 8, 12), generator=generator)
    label[0, :, :3] = 255
    label[1] = 255
    label[2:] = 1
    label[3, 2, 2] = 0
    return label


# The affinity loss


@pytest.mark.parametrize(('ignore', 'degenerate'), OPTIONS)
@pytest.mark.parametrize('grid', [(4, 6), (3, 4), (5, 6)], ids=str)
def test_terms_equal_the_plain_formula(grid: tuple[int, int], ignore: str, degenerate: str) -> None:
    torch.manual_seed(0)
    label, options = make_labels(), dict(ignore=ignore, degenerate=degenerate)
    shape = (4, grid[0] * grid[1], 4, 6)
    prior = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    ours = affinity_terms(prior, label, grid, **options)
    plain = affinity_terms_slow(prior, label, grid, **options)
    for name, term in ours.items():
        torch.testing.assert_close(term, plain[name], msg=name)
        (mine,) = torch.autograd.grad(term, prior, retain_graph=True)
        (theirs,) = torch.autograd.grad(plain[name], prior, retain_graph=True)
        torch.testing.assert_close(mine, theirs, msg=name)


def test_gradient_is_the_derivative() -> None:
    label = make_labels()[:, :4, :6]
    prior = torch.randn(4, 6, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: total(affinity_terms(z, label, (2, 3))), prior)


def test_blocks_of_pairs_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    label, results = make_labels(), []
    prior = torch.randn(4, 24, 4, 6, dtype=torch.float64, requires_grad=True)
    for pairs in (2**20, 5 * 4 * 24, 1):  # 24, 5 and 1 cells at a time
        monkeypatch.setattr('mmseg_ext.papers.cpnet.affinity.PAIRS', pairs)
        value = total(affinity_terms(prior, label, (4, 6)))
        results.append((value, *torch.autograd.grad(value, prior)))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def hard_case(name: str) -> tuple[Tensor, Tensor]:
    """A prior's logits (1, 512, 16, 32) and labels of its size in which differences cancel."""
    torch.manual_seed(3)
    z, ids = torch.randn(1, 512, 512), torch.zeros(512, dtype=torch.long)
    if name == 'one foreign pixel that all take for theirs':
        ids[100] = 1
        z[0, 100] = 10 + 0.1 * z[0, 100]
    if name == 'pairs that do not find each other':
        ids = torch.arange(512) // 2
        z = 0.5 * z - 15
    if name == 'all of different classes':
        ids = torch.arange(512)
    if name == 'random classes':
        ids = torch.randint(0, 7, (512,))
    ids = torch.where(ids == 255, 600, ids)
    return z.view(1, 512, 16, 32), ids.view(1, 16, 32)


@pytest.mark.parametrize(
    'name',
    [
        'one foreign pixel that all take for theirs',
        'pairs that do not find each other',
        'all of different classes',
        'one class',
        'random classes',
    ],
)
def test_float32_is_as_good_as_float64(name: str) -> None:
    z, label = hard_case(name)
    results = []
    for dtype in (torch.float32, torch.float64):
        prior = z.to(dtype).requires_grad_()
        value = total(affinity_terms(prior, label, (16, 32)))
        (grad,) = torch.autograd.grad(value, prior)
        assert value.isfinite() and grad.isfinite().all()
        results.append((value.double(), grad.double()))
    (value, grad), (exact, slope) = results
    assert (value - exact).abs() <= 2e-6 * exact.abs()
    assert (grad - slope).abs().max() <= 2e-6 * slope.abs().max()


def test_loss_is_the_released_one() -> None:
    label = make_labels()
    prior = torch.randn(4, 24, 4, 6, requires_grad=True)
    ours = AffinityLoss(loss_weight=0.5)(prior, label, (4, 6))
    released, terms = affinity_loss_released(prior, label, 3)
    torch.testing.assert_close(ours['loss_prior'], 0.5 * released)
    for name, term in terms.items():
        torch.testing.assert_close(ours[f'prior_{name}'], term)
    torch.testing.assert_close(
        torch.autograd.grad(ours['loss_prior'], prior),
        torch.autograd.grad(0.5 * released, prior),
        rtol=1e-4,
        atol=1e-8,
    )


def test_perfect_prior_leaves_the_precision_of_the_pixel_itself() -> None:
    label = torch.tensor([0, 0, 0, 1, 1, 1]).repeat(1, 4, 1)
    perfect = 40.0 * affinity(label, (4, 6)).float().mT.reshape(1, 24, 4, 6) - 20
    terms = affinity_terms(perfect, label, (4, 6))
    for name in ('unary', 'recall', 'specificity'):
        assert terms[name] < 1e-6
    torch.testing.assert_close(terms['precision'], torch.tensor(-math.log(11 / 12)))


def test_names_of_classes_and_order_of_pixels_do_not_matter() -> None:
    label = make_labels()[:1]
    small = label_at(label, (4, 6)).where(label_at(label, (4, 6)) < 3, torch.tensor(255))
    prior = torch.randn(1, 24, 24, dtype=torch.float64)
    value = total(affinity_terms(prior.view(1, 24, 4, 6), small.view(1, 4, 6), (4, 6)))
    renamed = torch.where(small == 255, 255, (small + 1) % 3)
    order = torch.randperm(24)
    shuffled = prior[:, order][:, :, order]
    again = total(
        affinity_terms(shuffled.view(1, 24, 4, 6), renamed[:, order].view(1, 4, 6), (4, 6))
    )
    torch.testing.assert_close(again, value)


def test_ignored_pixels_are_a_class_unless_masked() -> None:
    label, prior = make_labels()[:1], torch.randn(1, 24, 4, 6)
    changed = prior.clone()
    changed[..., :1] += 1  # ignored pixels ask
    changed.view(1, 4, 6, 4, 6)[:, :, 0] -= 1  # ignored cells are asked
    for ignore, equal in (('class', False), ('mask', True)):
        values = [total(affinity_terms(p, label, (4, 6), ignore=ignore)) for p in (prior, changed)]
        assert torch.equal(*values) == equal


def test_all_ignored_is_one_class_or_nothing() -> None:
    label = torch.full((1, 8, 12), 255)
    prior = torch.randn(1, 24, 4, 6, requires_grad=True)
    assert affinity_terms(prior, label, (4, 6))['specificity'] == 100
    nothing = total(affinity_terms(prior, label, (4, 6), ignore='mask'))
    (grad,) = torch.autograd.grad(nothing, prior)
    assert nothing == 0 and not grad.any()


def test_prior_that_vanishes_leaves_finite_gradients() -> None:
    prior = torch.full((1, 24, 4, 6), -200.0, requires_grad=True)
    value = total(affinity_terms(prior, make_labels()[:1], (4, 6)))
    (grad,) = torch.autograd.grad(value, prior)
    assert value.isfinite() and grad.isfinite().all()


@pytest.mark.parametrize('option', [dict(ignore='no'), dict(degenerate='no')], ids=str)
def test_unknown_options_of_the_loss_are_refused(option: dict) -> None:
    with pytest.raises(ValueError, match="'class' or 'mask'.*'legacy' or 'skip'"):
        AffinityLoss(**option)


# The aggregation


def test_orders_of_row_and_column_differ_by_biases_alone() -> None:
    torch.manual_seed(0)
    block = Aggregation(5, 4, 3, norm_cfg=dict(type='BN')).eval()
    assert block.t1.conv.kernel_size == block.p2.conv.kernel_size == (3, 1)
    assert block.t2.conv.kernel_size == block.p1.conv.kernel_size == (1, 3)
    x = torch.randn(2, 4, 9, 9)
    for conv in (block.t1.conv, block.t2.conv):
        nn.init.normal_(conv.bias)
    there, back = block.t2(block.t1(x)), block.t1(block.t2(x))
    inside = (there - back)[:, :, 2:-2, 2:-2]
    assert inside.std((0, 2, 3)).max() < 1e-5 < inside.abs().max()  # a constant for each channel
    assert (there - back)[:, :, 0].std(2).max() > 1e-3
    block.t1.conv.bias.data.zero_()
    assert not torch.allclose(block.t2(block.t1(x))[:, :, 4], there[:, :, 4])
    block.t2.conv.bias.data.zero_()
    torch.testing.assert_close(block.t2(block.t1(x)), block.t1(block.t2(x)))


def test_even_kernel_is_refused() -> None:
    with pytest.raises(
        ValueError, match='kernel_size=4 .*am_kernel_size of CPNetHead.* no centre: take 3 or 5'
    ):
        head(am_kernel_size=4)


# The contexts


@torch.no_grad()
@pytest.mark.parametrize('groups', [1, 2])
def test_contexts_are_the_released_ones(groups: int) -> None:
    model, values = head(groups=groups), torch.rand(2, 4, 4, 6)
    intra, inter, _ = model.contexts(values)
    torch.testing.assert_close((intra, inter), contexts_released(model, values))
    torch.testing.assert_close(intra + inter, values.mean((2, 3), keepdim=True).expand_as(intra))


@torch.no_grad()
def test_prediction_equals_training_at_any_number_of_pixels_at_once() -> None:
    model, x = head(), torch.randn(2, 6, 5, 7)
    whole = copy.deepcopy(model)
    whole.training = True  # norms and dropout stay in eval
    logits, prior = whole([x])
    assert prior.shape == (2, 24, 5, 7)
    for count in (1, 7, 35, 1000):
        model.pixels_at_once = count
        torch.testing.assert_close(model([x]), logits)


@torch.no_grad()
def test_prior_is_held_for_a_few_pixels_at_a_time() -> None:
    model, sizes = head(pixels_at_once=8), []
    model.prior_conv.register_forward_hook(lambda *args: sizes.append(args[2].shape[2]))
    model([torch.randn(1, 6, 5, 7)])
    assert sizes == [8, 8, 8, 8, 3]


@torch.no_grad()
def test_cells_are_pooled_or_interpolated_on_each_axis() -> None:
    x = torch.rand(1, 1, 8, 3, dtype=torch.float64)
    pooled = x.view(1, 1, 4, 2, 3).mean(3)
    expected = nn.functional.interpolate(pooled, (4, 6), mode='bilinear', align_corners=False)
    torch.testing.assert_close(resample(x, (4, 6)), expected)
    torch.testing.assert_close(resample(x, (4, 3)), pooled)
    assert resample(x, (8, 3)) is x


@torch.no_grad()
@pytest.mark.parametrize('size', [(1, 1), (1, 9), (4, 6), (3, 8), (9, 7), (16, 24)], ids=str)
def test_any_size_gives_logits_and_both_contexts(size: tuple[int, int]) -> None:
    model, values = head(), torch.rand(2, 4, *size)
    assert model([torch.randn(2, 6, *size)]).shape == (2, 3, *size)
    cells = resample(values, (4, 6)).flatten(2)
    prior = model.prior_conv(values).sigmoid()  # (N, cells, H, W)
    expected = [torch.einsum('nkhw,nck->nchw', p, cells) / 24 for p in (prior, 1 - prior)]
    torch.testing.assert_close([*model.contexts(values)[:2]], expected)


@torch.no_grad()
def test_strict_takes_the_size_of_the_prior_alone() -> None:
    x, strict = torch.randn(1, 6, 4, 6), head(key_mode='strict')
    assert torch.equal(strict([x]), head()([x]))
    with pytest.raises(ValueError, match=r'features of 5 x 6 do not fit prior_size=\(4, 6\)'):
        strict([torch.randn(1, 6, 5, 6)])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(groups=3), r'groups=3 must divide prior_channels=4 and the 4 x 6 = 24 cells'),
        (dict(groups=4, prior_size=(3, 5)), 'the 3 x 5 = 15 cells'),
        (dict(key_mode='no'), "take 'resample' or 'strict'"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head(**change)


# Training


@pytest.mark.parametrize('classes', ['one image', 'one class', 'one class in all', 'ignored'])
def test_a_step_trains_every_parameter(classes: str) -> None:
    model = head(num_classes=1 if classes == 'one class in all' else 3).train()
    label = torch.arange(8 * 12).view(1, 8, 12) % 3
    if classes != 'one image':
        label = torch.full_like(label, 255 if classes == 'ignored' else 0)
    losses = model.loss([torch.randn(1, 6, 4, 6)], samples(label), {})
    terms = {f'prior_{name}' for name in ('unary', 'recall', 'specificity', 'precision')}
    assert set(losses) == {'loss_ce', 'acc_seg', 'loss_prior'} | terms
    (losses['loss_ce'] + losses['loss_prior']).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.aggregation.t1.conv.weight.grad.any()


def test_one_value_for_each_channel_trains_with_two_images_alone() -> None:
    model, label = head().train(), torch.zeros(2, 8, 8, dtype=torch.long)
    losses = model.loss([torch.randn(2, 6, 1, 1)], samples(label), {})
    assert (losses['loss_ce'] + losses['loss_prior']).isfinite()
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        model.loss([torch.randn(1, 6, 1, 1)], samples(label[:1]), {})


def test_low_precision_logits_give_a_float32_loss() -> None:
    prior = torch.randn(4, 24, 4, 6).bfloat16()
    exact = total(affinity_terms(prior.float(), make_labels(), (4, 6)))
    with torch.autocast('cpu', torch.bfloat16):
        value = total(affinity_terms(prior, make_labels(), (4, 6)))
    assert value.dtype == torch.float32 and value == exact


# Explanations


def test_pixel_is_explained_by_its_prior_beside_the_truth() -> None:
    model, x, label = head(), torch.randn(4, 6, 5, 7), make_labels()
    maps = model.explain([x], point=(0.5, 0.99), label=label[:, None])
    model.training = True
    row = model([x])[1][:, :, 4, 3].sigmoid()  # of the cell (int(0.99 * 5), int(0.5 * 7))
    torch.testing.assert_close(maps['prior'], row.view(4, 1, 4, 6))
    truth = affinity(label, (5, 7), (4, 6))[:, 4 * 7 + 3].view(4, 1, 4, 6)
    assert torch.equal(maps['true_affinity'], truth)
    assert truth.any() and not truth.all()
    assert set(model.eval().explain([x], point=(0, 0))) == {'prior'}


def test_image_is_explained_by_its_contexts() -> None:
    maps = head().explain([torch.randn(2, 6, 5, 7)])
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        'intra_context': (2, 4, 5, 7),
        'inter_context': (2, 4, 5, 7),
    }


# Weights


def test_released_names_are_ours() -> None:
    names = {f'decode_head.{name}': t for name, t in head().state_dict().items()}
    assert convert(names) == names
    with pytest.raises(ValueError, match='decode_head.other.weight'):
        convert(names | {'decode_head.other.weight': torch.zeros(1)})


@torch.no_grad()
def test_prior_moves_to_another_grid_like_an_image() -> None:
    weights = {f'decode_head.{name}': t for name, t in head().state_dict().items()}
    for name, tensor in resize_prior(weights, (4, 6), (4, 6)).items():
        torch.testing.assert_close(tensor, weights[name])
    moved = resize_prior(weights, (4, 6), (8, 12))
    other = head(prior_size=(8, 12))
    other.load_state_dict({n.removeprefix('decode_head.'): t for n, t in moved.items()})
    bias, old = (
        w['decode_head.prior_conv.bn.bias'].view(size)
        for w, size in ((moved, (8, 12)), (weights, (4, 6)))
    )
    torch.testing.assert_close(bias[0, 1], 0.75 * old[0, 0] + 0.25 * old[0, 1])
    with pytest.raises(ValueError, match='has 36 cells, these weights have 24'):
        resize_prior(weights, (6, 6), (8, 12))
