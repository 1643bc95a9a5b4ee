import pytest
import torch
from mmseg.registry import MODELS
from torch.autograd import gradcheck

from mmseg_ext.losses import PixelSumBCELoss, pixel_sum_bce
from tests.oracles.rmi_loss import rmi_parts


@pytest.fixture
def batch():
    """Logits of five classes, more than one chunk, and labels with every kind of ignored value."""
    return 2 * torch.randn(2, 5, 9, 14), torch.randint(-1, 7, (2, 9, 14))


def gradient(loss, logits):
    logits = logits.clone().requires_grad_()
    value = loss(logits)
    value.backward()
    return value.detach(), logits.grad


def test_it_is_the_obvious_sum_in_value_and_gradient(batch):
    logits, label = batch
    value, grad = gradient(lambda z: pixel_sum_bce(z, label), logits)
    expected, expected_grad = gradient(lambda z: rmi_parts(z, label)[0], logits.double())
    torch.testing.assert_close(value, expected.float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(grad, expected_grad.float(), rtol=1e-5, atol=1e-9)


def test_gradients_agree_with_differences(batch):
    logits, label = batch
    weight = torch.rand(2, 9, 14, dtype=torch.float64)
    logits = logits.double().requires_grad_()
    assert gradcheck(lambda z: pixel_sum_bce(z, label, weight=weight), logits)


def test_a_confident_right_answer_keeps_its_small_loss():
    label = torch.randint(0, 3, (1, 8, 8))
    logits = torch.full((1, 3, 8, 8), -20.0).scatter_(1, label[:, None], 20.0)
    expected = rmi_parts(logits, label)[0]
    torch.testing.assert_close(pixel_sum_bce(logits, label).double(), expected, rtol=1e-4, atol=0)


def test_ignored_pixels_do_not_matter(batch):
    logits, label = batch
    ignored = ((label < 0) | (label >= 5))[:, None]
    changed = torch.where(ignored, 50 * torch.randn_like(logits), logits)
    assert pixel_sum_bce(changed, label) == pixel_sum_bce(logits, label)


def test_the_ignore_index_may_be_a_class(batch):
    logits, label = batch
    other = torch.where(label == 2, 255, label)
    assert pixel_sum_bce(logits, label, ignore_index=2) == pixel_sum_bce(logits, other)


def test_all_ignored_is_zero_and_connected():
    value, grad = gradient(
        lambda z: pixel_sum_bce(z, torch.full((1, 6, 6), 255)), torch.randn(1, 3, 6, 6)
    )
    assert value == 0
    assert not grad.any()


def test_weights_multiply_and_leave_the_divisor(batch):
    logits, label = batch
    loss = MODELS.build(dict(type='PixelSumBCELoss', loss_weight=0.4))
    half = loss(logits, label, weight=torch.full(label.shape, 0.5))
    torch.testing.assert_close(half, 0.2 * pixel_sum_bce(logits, label))


def test_half_precision_logits_are_summed_in_float32(batch):
    logits, label = batch
    logits = logits.bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        value, grad = gradient(lambda z: pixel_sum_bce(z, label), logits)
    expected, expected_grad = gradient(lambda z: pixel_sum_bce(z, label), logits.float())
    assert value.dtype == torch.float32
    assert value == expected
    torch.testing.assert_close(grad, expected_grad.bfloat16(), rtol=0, atol=0)


def test_a_second_backward_gives_the_same_gradient(batch):
    logits, label = batch
    logits.requires_grad_()
    loss = pixel_sum_bce(logits, label)
    first, second = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_only_logits_labels_and_weights_are_kept_for_backward(batch):
    logits, label = batch
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        pixel_sum_bce(logits.requires_grad_(), label)
    full_maps = [x for x in kept if x.shape == logits.shape]
    assert [x.data_ptr() for x in full_maps] == [logits.data_ptr()]


def test_sizes_that_differ_are_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r'\(1, 3, 4, 4\).*\(1, 8, 8\).*resize the logits'):
        pixel_sum_bce(torch.randn(1, 3, 4, 4), torch.zeros(1, 8, 8, dtype=torch.long))


@pytest.mark.parametrize('other', [dict(avg_factor=7.0), dict(reduction_override='none')])
def test_another_divisor_is_refused(batch, other):
    with pytest.raises(ValueError, match='fixed divisor'):
        PixelSumBCELoss()(*batch, **other)
