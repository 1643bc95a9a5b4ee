import math

import pytest
import torch
from torch.autograd import gradcheck

from mmseg_ext.losses import ImageWeightedCELoss
from tests.oracles.gscnn import image_weighted_ce_released


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of five classes of three images, the last one without labels."""
    torch.manual_seed(0)
    label = torch.randint(0, 5, (3, 9, 14)).where(torch.rand(3, 9, 14) > 0.2, 255)
    label[0][label[0] == 3] = 1
    label[2] = 255
    return 2 * torch.randn(3, 5, 9, 14), label


def test_the_sum_is_the_released_loop_in_value_and_gradient(batch):
    logits, label = batch
    pairs = []
    for loss in (ImageWeightedCELoss(reduction='sum'), image_weighted_ce_released):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, label)
        pairs.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(*pairs, rtol=1e-5, atol=1e-7)


def test_the_mean_does_not_grow_with_the_batch_and_the_sum_does(batch):
    twice = [torch.cat([x, x]) for x in batch]
    mean, total = ImageWeightedCELoss(), ImageWeightedCELoss(reduction='sum')
    torch.testing.assert_close(mean(*twice), mean(*batch))
    torch.testing.assert_close(total(*twice), 2 * total(*batch))


def test_uniform_logits_cost_the_logarithm_of_the_classes(batch):
    logits, label = batch
    value = ImageWeightedCELoss()(torch.zeros_like(logits[:2]), label[:2])
    assert value.item() == pytest.approx(math.log(5))


def test_a_rare_class_counts_more():
    """One of ten pixels is of class 1, with the weight 1.9 beside 1.1 of the others."""
    label = torch.zeros(1, 1, 10, dtype=torch.long)
    label[..., 0] = 1
    logits = torch.randn(1, 2, 1, 10)
    terms = torch.nn.functional.cross_entropy(logits, label, reduction='none')[0, 0]
    expected = (1.9 * terms[0] + 1.1 * terms[1:].sum()) / (1.9 + 9 * 1.1)
    torch.testing.assert_close(ImageWeightedCELoss()(logits, label), expected)


def test_ignored_pixels_do_not_matter(batch):
    logits, label = batch
    changed = logits + 50 * torch.randn(3, 1, 9, 14) * (label == 255)[:, None] * torch.randn(
        5, 1, 1
    )
    loss = ImageWeightedCELoss()
    torch.testing.assert_close(loss(changed, label), loss(logits, label), rtol=0, atol=0)


def test_a_batch_without_labels_gives_zero_with_a_graph(batch):
    logits = batch[0].requires_grad_()
    value = ImageWeightedCELoss()(logits, torch.full((3, 9, 14), 255))
    value.backward()
    assert value == 0 and not logits.grad.any()


def test_gradients_agree_with_differences(batch):
    logits, label = batch
    logits = logits[:2, :, :4, :5].double().requires_grad_()
    pixels = torch.rand(2, 4, 5, dtype=torch.float64)
    loss = ImageWeightedCELoss(upper_bound=3.0)
    assert gradcheck(lambda z: loss(z, label[:2, :4, :5], weight=pixels), logits)


def test_it_is_float32_of_half_logits(batch):
    logits, label = batch
    assert ImageWeightedCELoss()(logits.bfloat16(), label).dtype == torch.float32


def test_another_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction='none' must be one of"):
        ImageWeightedCELoss(reduction='none')
