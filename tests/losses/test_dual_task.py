import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from mmseg_ext.losses import DualTaskLoss
from mmseg_ext.losses.dual_task import border_difference, border_strength
from tests.oracles.gscnn import dual_task_by_hand, dual_task_released, strength_by_hand

BOTH = pytest.mark.parametrize('spatial', [True, False])


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits of four classes, labels with ignored ones, and random numbers."""
    torch.manual_seed(0)
    blocks = torch.randint(0, 4, (2, 3, 4)).repeat_interleave(5, 1).repeat_interleave(4, 2)
    label = blocks.where(torch.rand(2, 15, 16) > 0.1, 255)
    return 3 * torch.randn(2, 4, 15, 16), label, torch.rand(2, 4, 15, 16)


def loss(spatial: bool) -> DualTaskLoss:
    return DualTaskLoss(temperature=0.5, spatial_grad=spatial)


@pytest.mark.parametrize('size', [(6, 7), (2, 9), (1, 1)], ids=str)
def test_borders_are_those_of_the_formula_pixel_by_pixel(size: tuple[int, int]) -> None:
    maps = torch.rand(1, 2, *size, dtype=torch.float64)
    torch.testing.assert_close(border_strength(maps)[0], strength_by_hand(maps[0]))


def test_the_papers_form_is_the_mean_difference_of_borders() -> None:
    torch.manual_seed(0)
    label = torch.randint(0, 3, (1, 5, 6))
    valid = torch.rand(1, 5, 6) > 0.3
    probs = torch.rand(1, 3, 5, 6, dtype=torch.float64).softmax(1)
    one_hot = F.one_hot(label, 3).permute(0, 3, 1, 2).double()
    expected = dual_task_by_hand(probs[0], one_hot[0], valid[0])
    torch.testing.assert_close(border_difference(probs, label, valid), expected)


def test_the_released_form_is_exact_in_value_and_gradient(batch) -> None:
    logits, label, uniform = batch
    results = []
    for form in (loss(False), dual_task_released):
        leaf = logits.double().requires_grad_()
        noise = uniform.double()
        if form is dual_task_released:
            value = form(leaf, label, noise.flatten(2))
        else:
            value = form(leaf, label, uniform=noise)
        results.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-9)


@BOTH
def test_perfect_logits_cost_little_and_others_at_most_one(spatial: bool, batch) -> None:
    logits, label, _ = batch
    label = label if spatial else label.where(label < 4, 0)  # there noise is compared with class 0
    perfect = 50.0 * F.one_hot(label.clamp(max=3), 4).permute(0, 3, 1, 2)
    assert loss(spatial)(perfect, label) < 1e-3 < loss(spatial)(logits, label) < 1


@BOTH
def test_ignored_pixels_do_not_matter(spatial: bool, batch) -> None:
    logits, label, uniform = batch
    changed = logits + 50 * (label == 255)[:, None]
    values = [loss(spatial)(x, label, uniform=uniform) for x in (logits, changed)]
    torch.testing.assert_close(*values, rtol=0, atol=0)


@BOTH
def test_a_batch_without_labels_is_finite_and_has_a_graph(spatial: bool, batch) -> None:
    logits = batch[0].requires_grad_()
    value = loss(spatial)(logits, torch.full((2, 15, 16), 255))
    value.backward()
    assert value.isfinite() and not logits.grad.any()
    assert not spatial or value == 0


@BOTH
def test_gradients_agree_with_differences(spatial: bool, batch) -> None:
    logits, label, uniform = (x[..., :5, :6] for x in batch)
    logits = logits.double().requires_grad_()
    module = DualTaskLoss(temperature=2.0, spatial_grad=spatial)
    assert gradcheck(lambda z: module(z, label, uniform=uniform.double()), logits)


@BOTH
def test_noise_is_drawn_anew_each_time(spatial: bool, batch) -> None:
    logits, label, uniform = batch
    module = loss(spatial)
    assert module(logits, label) != module(logits, label)
    assert module(logits, label, uniform=uniform) == module(logits, label, uniform=uniform)


@BOTH
def test_autocast_leaves_it_alone(spatial: bool, batch) -> None:
    logits, label, uniform = batch
    plain = loss(spatial)(logits, label, uniform=uniform)
    with torch.autocast('cpu', torch.bfloat16):
        value = loss(spatial)(logits, label, uniform=uniform)
    torch.testing.assert_close(value, plain, rtol=0, atol=0)


def test_weights_of_pixels_are_refused(batch) -> None:
    logits, label, uniform = batch
    with pytest.raises(ValueError, match='remove the sampler'):
        DualTaskLoss()(logits, label, weight=uniform[:, 0])
