import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.autograd import gradcheck

from mmseg_ext.losses import RMILoss, pixel_sum_bce, region_mutual_information
from mmseg_ext.losses import rmi_loss as module
from tests.oracles.rmi_loss import rmi_loss_released, rmi_parts


def blocks(num_classes, size=(40, 56), n=2):
    """Labels in blocks, with ignored ones on both sides of the classes."""
    coarse = torch.randint(-1, num_classes + 2, (n, 1, 7, 9)).float()
    return F.interpolate(coarse, size)[:, 0].long()


def confident(label, num_classes):
    """Logits of a good prediction: 8 for the label, -8 for the others, and noise."""
    right = torch.stack([label == c for c in range(num_classes)], 1)
    return 16.0 * right - 8 + torch.randn(right.shape)


def gradient(loss, logits):
    logits = logits.clone().requires_grad_()
    value = loss(logits)
    value.backward()
    return value.detach(), logits.grad


def assert_same(ours, expected):
    (value, grad), (expected, expected_grad) = ours, expected
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    worst = (grad - expected_grad).abs().max() / expected_grad.abs().max()
    assert worst < 1e-4


@pytest.mark.parametrize('size', [(40, 56), (33, 47), (34, 35)])
@pytest.mark.parametrize('radius, stride', [(1, 4), (2, 3), (3, 4), (3, 1), (4, 2), (5, 5)])
@pytest.mark.parametrize('pool', ['avg', 'max', 'interp'])
def test_it_is_the_obvious_formula_in_value_and_gradient(pool, radius, stride, size):
    label = blocks(3, size)
    hyper = dict(radius=radius, pool=pool, pool_stride=stride)
    for logits in (2 * torch.randn(2, 3, *size), confident(label, 3).double()):
        ours = gradient(lambda z: region_mutual_information(z, label, **hyper), logits)
        assert_same(ours, gradient(lambda z: rmi_parts(z, label, **hyper)[1], logits.double()))


@pytest.mark.parametrize('combine, bce_weight', [('mix', 0.7), ('add', 1.0)])
def test_the_two_parts_are_combined_as_asked(combine, bce_weight):
    label, logits = blocks(3), torch.randn(2, 3, 40, 56)
    loss = MODELS.build(
        dict(type='RMILoss', rmi_weight=0.3, combine=combine, loss_weight=2.0, loss_name='loss_x')
    )
    bce, rmi = rmi_parts(logits, label)
    torch.testing.assert_close(loss(logits, label).double(), 2 * (bce_weight * bce + 0.3 * rmi))
    assert loss.loss_name == 'loss_x'


def test_the_released_form_gives_the_same_numbers():
    logits = 2 * torch.randn(1, 6, 64, 96)
    label = blocks(6, (64, 96), n=1).abs()
    ours = gradient(lambda z: RMILoss()(z, label), logits)
    value, grad = gradient(lambda z: rmi_loss_released(z, label), logits)
    assert_same(ours, (value.double(), grad))


@pytest.mark.parametrize('pool', ['avg', 'max', 'interp'])
def test_gradients_agree_with_differences(pool):
    logits = torch.randn(1, 2, 12, 12, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 3, (1, 12, 12))
    loss = RMILoss(pool=pool, pool_stride=2 if pool == 'interp' else 4)
    assert gradcheck(lambda z: loss(z, label), logits)


def test_bands_of_rows_add_up_to_the_whole(monkeypatch):
    label, logits = blocks(3), torch.randn(2, 3, 40, 56)
    loss = RMILoss(pool_stride=1)
    whole = gradient(lambda z: loss(z, label), logits)
    monkeypatch.setattr(module, 'PATCH_BYTES', 2 * 3 * 18 * 54 * 8 * 5)  # 38 rows by 5
    torch.testing.assert_close(gradient(lambda z: loss(z, label), logits), whole)


@pytest.mark.parametrize('pool', ['avg', 'max', 'interp'])
def test_all_ignored_is_finite_connected_and_teaches_nothing(pool):
    label = torch.full((1, 33, 47), 255)
    value, grad = gradient(lambda z: RMILoss(pool=pool)(z, label), torch.randn(1, 3, 33, 47))
    torch.testing.assert_close(value.item(), 0.5 * 3 * math.log(5e-4) / 2, rtol=1e-5, atol=0)
    assert not grad.any()


def test_ignored_pixels_do_not_matter():
    label, logits = blocks(3), torch.randn(2, 3, 40, 56)
    ignored = ((label < 0) | (label >= 3))[:, None]
    changed = torch.where(ignored, 50 * torch.randn_like(logits), logits)
    assert RMILoss()(changed, label) == RMILoss()(logits, label)


def test_every_label_beyond_the_classes_is_ignored():
    logits = torch.randn(1, 65, 32, 32)
    label = torch.randint(0, 256, (1, 32, 32))
    same = torch.where(label >= 65, 255, label)
    assert RMILoss()(logits, label, ignore_index=65) == RMILoss()(logits, same)


def test_a_perfect_prediction_leaves_two_ridges_and_an_absent_class_one():
    label = blocks(3).clamp(0, 2)
    logits = 100.0 * torch.stack([label == c for c in range(4)], 1) - 50
    left_over = region_mutual_information(logits, label).item()
    # S - S (S + aI)^-1 S is aI for S far above a, and is followed by another aI; S = 0 leaves that.
    assert left_over == pytest.approx((3 * math.log(2 * 5e-4) + math.log(5e-4)) / 2, rel=1e-4)


def test_one_class_everywhere_leaves_the_floor_of_all_others():
    label = torch.ones(1, 40, 56, dtype=torch.long)
    logits = torch.full((1, 3, 40, 56), -50.0)
    assert region_mutual_information(logits[:, :1], label).item() == pytest.approx(module.FLOOR)
    logits[:, 1] = 50
    left_over = region_mutual_information(logits, label).item()
    assert 3 * module.FLOOR <= left_over <= 3 * module.FLOOR + math.log(2) / 2


def test_the_offset_moves_the_floor_to_zero_and_no_gradient():
    label, logits = blocks(3), torch.randn(2, 3, 40, 56)
    value, grad = gradient(lambda z: RMILoss()(z, label), logits)
    moved, moved_grad = gradient(lambda z: RMILoss(offset=True)(z, label), logits)
    torch.testing.assert_close(moved - value, torch.tensor(-0.5 * 3 * math.log(5e-4) / 2))
    assert torch.equal(grad, moved_grad)


def test_renaming_the_classes_changes_nothing():
    label, logits = blocks(5).clamp(min=0), torch.randn(2, 5, 40, 56)
    order = torch.randperm(5)
    renamed = torch.where(label < 5, order.argsort()[label.clamp(max=4)], 255)
    torch.testing.assert_close(RMILoss()(logits[:, order], renamed), RMILoss()(logits, label))


def test_a_batch_of_two_equal_samples_is_one():
    label, logits = blocks(3, n=1), torch.randn(1, 3, 40, 56)
    torch.testing.assert_close(
        region_mutual_information(logits.repeat(2, 1, 1, 1), label.repeat(2, 1, 1)),
        region_mutual_information(logits, label),
    )


def test_a_matrix_that_is_not_positive_definite_gets_more_on_its_diagonal():
    matrices = torch.stack([torch.eye(4), -5.0e-4 * torch.eye(4)]).double()
    factors = module._cholesky(matrices)
    products = factors @ factors.mT
    torch.testing.assert_close(products[0], (1 + 5e-4) * torch.eye(4).double())
    torch.testing.assert_close(products[1], 5e-3 * torch.eye(4).double())


def test_autocast_changes_nothing_but_the_rounding_of_logits_and_gradients():
    label = blocks(4)
    logits = confident(label, 4).bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        value, grad = gradient(lambda z: region_mutual_information(z, label), logits)
    expected, expected_grad = gradient(
        lambda z: region_mutual_information(z, label), logits.float()
    )
    assert value.dtype == torch.float32
    assert value == expected
    assert torch.equal(grad, expected_grad.bfloat16())


def test_no_full_map_but_the_logits_is_kept_for_backward():
    logits, label = torch.randn(1, 8, 64, 64, requires_grad=True), blocks(8, (64, 64), n=1)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        RMILoss()(logits, label)
    large = {x.data_ptr() for x in kept if x.numel() >= logits.numel()}
    assert large == {logits.data_ptr()}


def test_a_head_of_the_host_trains_with_it():
    head = MODELS.build(
        dict(
            type='FCNHead',
            in_channels=8,
            channels=8,
            num_classes=3,
            num_convs=1,
            norm_cfg=dict(type='BN'),
            loss_decode=dict(type='RMILoss'),
        )
    )
    label = blocks(3, (48, 64), n=2)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=y[None])) for y in label]
    feats = [torch.stack([label == c for c in range(8)], 1)[..., ::4, ::4].float()]
    optimizer = torch.optim.Adam(head.parameters(), 3e-2)
    losses = []
    for _ in range(20):
        loss = head.loss(feats, samples, None)['loss_rmi']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1


def test_weights_of_pixels_are_refused():
    with pytest.raises(ValueError, match='remove the sampler'):
        RMILoss()(torch.randn(1, 3, 32, 32), torch.zeros(1, 32, 32), weight=torch.ones(1, 32, 32))


def test_a_crop_smaller_than_a_patch_is_refused():
    label = torch.zeros(1, 6, 32, dtype=torch.long)
    with pytest.raises(ValueError, match=r'\(6, 32\).*radius=3.*larger crops'):
        RMILoss()(torch.randn(1, 2, 6, 32), label)


@pytest.mark.parametrize(
    'wrong', [dict(pool='mean'), dict(combine='sum'), dict(radius=0), dict(pool_stride=0)]
)
def test_a_wrong_option_is_named(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"{name}='?{value}"):
        RMILoss(**wrong)


def test_the_cross_entropy_part_is_the_loss_of_its_own_name():
    label, logits = blocks(3), torch.randn(2, 3, 40, 56)
    only = MODELS.build(dict(type='PixelSumBCELoss'))
    assert only(logits, label) == pixel_sum_bce(logits, label)
    torch.testing.assert_close(
        RMILoss(rmi_weight=0.0)(logits, label), only(logits, label), rtol=1e-6, atol=0
    )
