from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.models.losses import OhemCrossEntropy
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.autograd import gradcheck

from mmseg_ext.benchmark.measuring import in_fresh_process, peak_rise
from mmseg_ext.losses import WeightedCELoss, strips
from tests.oracles.pssl import weighted_ce_released
from tests.oracles.spnet import weighted_ce_of_hard_pixels

WEIGHTS = (0.5, 2.0, 1.0, 0.25, 1.5)
Batch = tuple[Tensor, Tensor]


@pytest.fixture
def batch() -> Batch:
    """Logits of five classes, and labels with every kind of ignored value."""
    return 2 * torch.randn(2, 5, 9, 14), torch.randint(-1, 7, (2, 9, 14))


def gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits)
    value.backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize('class_weight', [None, WEIGHTS])
@pytest.mark.parametrize(
    ('threshold', 'min_kept'), [(None, 1), (0.7, 1), (0.05, 30), (0.3, 100), (0.7, 10**6)]
)
def test_it_is_the_obvious_mean_in_value_and_gradient(batch, class_weight, threshold, min_kept):
    logits, label = batch
    loss = WeightedCELoss(class_weight=class_weight, threshold=threshold, min_kept=min_kept)
    value, grad = gradient(lambda z: loss(z, label), logits)
    expected, expected_grad = gradient(
        lambda z: weighted_ce_of_hard_pixels(z, label, class_weight, threshold, min_kept),
        logits.double(),
    )
    torch.testing.assert_close(value, expected.float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(grad, expected_grad.float(), rtol=1e-5, atol=1e-8)


def test_the_least_probable_are_kept_when_too_few_are_hard():
    """Of ten sure pixels with different probabilities the four least sure are averaged."""
    label = torch.zeros(1, 1, 10, dtype=torch.long)
    logits = torch.zeros(1, 2, 1, 10)
    logits[:, 0] = torch.arange(5.0, 15.0)[torch.randperm(10)]
    value, grad = gradient(lambda z: WeightedCELoss(threshold=0.7, min_kept=4)(z, label), logits)
    kept = logits[0, 0, 0] < 9
    assert torch.equal(grad[0, 0, 0] != 0, kept)
    torch.testing.assert_close(value, torch.log1p(torch.exp(-logits[0, 0, 0][kept])).mean())


def test_as_many_valid_pixels_as_have_to_be_kept_are_all_kept(batch):
    logits, label = batch
    count = int(((label >= 0) & (label < 5)).sum())
    everything = WeightedCELoss()(logits, label)
    for min_kept in (count, count + 1, label.numel(), label.numel() + 1):
        kept = WeightedCELoss(threshold=1e-6, min_kept=min_kept)(logits, label)
        torch.testing.assert_close(kept, everything, rtol=0, atol=0)
    fewer = WeightedCELoss(threshold=1e-6, min_kept=count - 1)(logits, label)
    assert fewer > everything


def test_gradients_agree_with_differences(batch):
    logits, label = batch
    pixels = torch.rand(2, 9, 14, dtype=torch.float64)
    loss = WeightedCELoss(class_weight=WEIGHTS, threshold=0.4, min_kept=20)
    logits = logits.double().requires_grad_()
    assert gradcheck(lambda z: loss(z, label, weight=pixels), logits)


def test_without_weights_it_is_pytorchs_mean(batch):
    logits, label = batch
    label = label.where((label >= 0) & (label < 5), 255)
    expected = torch.nn.functional.cross_entropy(logits, label, ignore_index=255)
    torch.testing.assert_close(WeightedCELoss()(logits, label), expected)


@pytest.mark.parametrize('threshold', [None, 0.7])
def test_ignored_pixels_do_not_matter(batch, threshold):
    logits, label = batch
    ignored = ((label < 0) | (label >= 5))[:, None]
    changed = torch.where(ignored, torch.inf, logits)
    loss = WeightedCELoss(class_weight=WEIGHTS, threshold=threshold, min_kept=20)
    assert loss(changed, label) == loss(logits, label)


def test_renaming_the_classes_changes_nothing(batch):
    logits, label = batch
    label = label.where((label >= 0) & (label < 5), 255)
    order = torch.randperm(5)
    renamed = torch.cat([order.argsort(), torch.full((251,), 255)])[label]
    loss = WeightedCELoss(class_weight=WEIGHTS, threshold=0.7, min_kept=20)
    other = WeightedCELoss(class_weight=torch.tensor(WEIGHTS)[order], threshold=0.7, min_kept=20)
    torch.testing.assert_close(other(logits[:, order], renamed), loss(logits, label))


@pytest.mark.parametrize('threshold', [None, 0.7])
def test_all_ignored_is_zero_and_connected(threshold):
    loss = WeightedCELoss(class_weight=WEIGHTS, threshold=threshold, min_kept=9)
    label = torch.full((1, 6, 6), 255)
    value, grad = gradient(lambda z: loss(z, label), torch.randn(1, 5, 6, 6))
    assert value == 0
    assert not grad.any()


@pytest.mark.parametrize('min_kept', [1, 30, 126, 251, 252, 10**6])
@pytest.mark.parametrize('threshold', [0.05, 0.7, 0.99])
def test_strict_hard_pixels_are_the_hosts(batch, threshold, min_kept):
    logits, label = batch
    label = label.where((label >= 0) & (label < 5), 255)
    logits[1] = logits[0]  # equal probabilities
    label[1, 4:] = label[0, 4:]
    theirs = OhemCrossEntropy(thres=threshold, min_kept=min_kept)
    ours = WeightedCELoss(threshold=threshold, min_kept=min_kept, strict=True)
    for value, expected in zip(
        gradient(lambda z: ours(z, label), logits),
        gradient(lambda z: theirs(z, label), logits),
        strict=True,
    ):
        torch.testing.assert_close(value, expected)


def test_a_pixel_at_the_threshold_is_hard_unless_strict():
    logits, label = torch.zeros(1, 2, 1, 3), torch.zeros(1, 1, 3, dtype=torch.long)
    loss = torch.tensor(2.0).log()
    assert WeightedCELoss(threshold=0.5, min_kept=1)(logits, label) == loss
    assert WeightedCELoss(threshold=0.5, min_kept=1, strict=True)(logits, label) == 0


@pytest.mark.parametrize('strict', [False, True])
@pytest.mark.parametrize('threshold', [None, 0.7])
def test_a_logit_that_is_no_number_is_not_hidden(batch, threshold, strict):
    logits, label = batch
    label[0, 0, 0], logits[0, :, 0, 0] = 1, torch.nan
    loss = WeightedCELoss(threshold=threshold, min_kept=9, strict=strict)
    assert loss(logits, label).isnan()


def test_half_precision_logits_are_averaged_in_float32(batch):
    logits, label = batch
    loss = MODELS.build(dict(type='WeightedCELoss', threshold=0.7, min_kept=9, loss_weight=0.4))
    with torch.autocast('cpu', torch.bfloat16):
        value, grad = gradient(lambda z: loss(z, label), logits.bfloat16())
    expected = 0.4 * WeightedCELoss(threshold=0.7, min_kept=9)(logits.bfloat16().float(), label)
    assert value.dtype == torch.float32 and grad.dtype == torch.bfloat16
    torch.testing.assert_close(value, expected)


def test_class_weights_are_not_in_the_checkpoint():
    loss = WeightedCELoss(class_weight=WEIGHTS)
    assert not loss.state_dict()
    assert loss.to(torch.float64).class_weight.dtype == torch.float64  # but follow the model


def test_what_does_not_fit_is_refused_with_a_sentence(batch):
    with pytest.raises(ValueError, match='2 class weights, but the logits have 5 classes'):
        WeightedCELoss(class_weight=(1.0, 2.0))(*batch)
    with pytest.raises(ValueError, match='min_kept=0: it must be at least 1'):
        WeightedCELoss(threshold=0.7, min_kept=0)
    with pytest.raises(ValueError, match='resize the logits'):
        WeightedCELoss()(batch[0][..., :4], batch[1])
    with pytest.raises(ValueError, match='fixed divisor'):
        WeightedCELoss()(*batch, avg_factor=7.0)
    with pytest.raises(ValueError, match='got class_weight and background_weight'):
        WeightedCELoss(class_weight=WEIGHTS, background_weight=0.1)
    with pytest.raises(ValueError, match='remove threshold or in_strips'):
        WeightedCELoss(threshold=0.7, in_strips=True)


@pytest.mark.parametrize('in_strips', [False, True])
def test_a_light_background_and_eps_are_the_released_formula(batch, in_strips):
    logits, label = batch
    label = label.where((label >= 0) & (label < 5), 5)
    label[0, 1:] = label[1] = 5  # of few pixels eps counts
    for eps in (1e-8, 1e-2):
        loss = WeightedCELoss(background_weight=0.1, eps=eps, in_strips=in_strips)
        value, grad = gradient(lambda z, f=loss: f(z, label, ignore_index=5), logits)
        expected, expected_grad = gradient(
            lambda z, e=eps: weighted_ce_released(z, label, 5, 0.1, e), logits.double()
        )
        torch.testing.assert_close(value, expected.float(), rtol=1e-6, atol=0)
        torch.testing.assert_close(grad, expected_grad.float(), rtol=1e-5, atol=1e-8)


def test_eps_outweighs_a_single_pixel():
    """One background pixel of 40,000: the mean weight of 2.5e-6 is far above 1e-8, but not 1e-4."""
    label = torch.full((1, 200, 200), 2)
    label[0, 7, 9] = 1
    logits = torch.zeros(1, 2, 200, 200)
    for eps, factor in ((0.0, 1.0), (1e-4, 0.1 / (0.1 + 4))):
        loss = WeightedCELoss(background_weight=0.1, eps=eps)(logits, label, ignore_index=2)
        torch.testing.assert_close(loss, factor * torch.tensor(2.0).log())


SIZES = [
    ((9, 14), (9, 14)),
    ((3, 5), (17, 21)),
    ((9, 14), (4, 5)),
    ((1, 1), (8, 8)),
    ((2, 3), (1, 7)),
]


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(('coarse', 'size'), SIZES)
@pytest.mark.parametrize('values', [1, 700, 2**24])
def test_strips_are_the_resized_logits(monkeypatch, values, coarse, size, align_corners):
    monkeypatch.setattr(strips, 'STRIP_VALUES', values)
    logits, label = torch.randn(2, 5, *coarse), torch.randint(-1, 7, (2, *size))
    weight = torch.rand(2, *size)
    loss = WeightedCELoss(class_weight=WEIGHTS, in_strips=True, loss_weight=3.0)
    plain = WeightedCELoss(class_weight=WEIGHTS, loss_weight=3.0)

    def resized(z: Tensor) -> Tensor:
        return F.interpolate(z, size=size, mode='bilinear', align_corners=align_corners)

    ours = gradient(lambda z: loss(z, label, weight, align_corners=align_corners), logits)
    expected = gradient(lambda z: plain(resized(z), label, weight), logits)
    torch.testing.assert_close(ours[0], expected[0], rtol=3e-6, atol=0)
    torch.testing.assert_close(
        ours[1], expected[1], rtol=1e-4, atol=3e-6 * float(expected[1].std())
    )


def test_gradients_of_strips_agree_with_differences():
    logits = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    label = torch.randint(-1, 5, (2, 7, 9))
    loss = WeightedCELoss(background_weight=0.1, in_strips=True)
    assert gradcheck(lambda z: loss(z, label), logits)


def test_of_strips_all_ignored_is_zero_and_connected():
    loss = WeightedCELoss(background_weight=0.1, eps=1e-8, in_strips=True)
    label = torch.full((1, 9, 9), 5)
    value, grad = gradient(lambda z: loss(z, label, ignore_index=5), torch.randn(1, 5, 3, 3))
    assert value == 0 and not grad.any()
    with torch.no_grad():
        assert loss(torch.randn(1, 5, 3, 3), label * 0) > 0


def test_strips_of_half_precision_are_computed_in_float32():
    logits, label = torch.randn(2, 5, 3, 4), torch.randint(5, (2, 12, 16))
    loss = WeightedCELoss(in_strips=True)
    with torch.autocast('cpu', torch.bfloat16):
        value, grad = gradient(lambda z: loss(z, label), logits.bfloat16())
    assert value.dtype == torch.float32 and grad.dtype == torch.bfloat16
    torch.testing.assert_close(value, loss(logits.bfloat16().float(), label))


@pytest.mark.parametrize('align_corners', [False, True])
def test_a_head_hands_its_logits_to_losses_that_resize_them(align_corners):
    """The loss of every head is that of resized logits; mixed with others, all get these."""
    strips_loss, plain_loss = (
        dict(type='WeightedCELoss', background_weight=0.1, in_strips=s) for s in (True, False)
    )
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=torch.randint(6, (1, 40, 30)))) for _ in range(2)
    ]
    feats = [torch.randn(2, 8, 5, 4)]
    values = {}
    for name, losses in dict(
        strips=strips_loss,
        plain=plain_loss,
        twice=[strips_loss, dict(strips_loss, loss_weight=2.0)],
        mixed=[strips_loss, dict(plain_loss, loss_weight=2.0)],
    ).items():
        torch.manual_seed(0)
        head = FCNHead(
            in_channels=8,
            channels=4,
            num_classes=6,
            num_convs=1,
            align_corners=align_corners,
            loss_decode=losses,
        )
        values[name] = head.loss(feats, samples, {})
    assert values['strips'].keys() == {'loss_ce'} == values['twice'].keys()
    assert 'acc_seg' in values['plain'] and 'acc_seg' in values['mixed']
    for name, factor in (('strips', 1), ('twice', 3), ('mixed', 3)):
        expected = factor * values['plain']['loss_ce']
        torch.testing.assert_close(values[name]['loss_ce'], expected, rtol=1e-5, atol=0)


def test_the_strips_of_a_thousand_classes_need_a_quarter_of_the_memory():
    """Measured by ``tools/benchmark_ops.py pssl_loss``; here in a smaller batch."""
    peaks = [in_fresh_process(peak_of_loss, in_strips) for in_strips in (True, False)]
    assert peaks[0] <= peaks[1] / 4


def peak_of_loss(in_strips: bool) -> int:
    torch.set_num_threads(1)
    logits = torch.randn(4, 1001, 32, 32, requires_grad=True)
    label = torch.randint(1002, (4, 256, 256))
    loss = WeightedCELoss(background_weight=0.1, in_strips=in_strips)

    def run() -> list[Tensor]:
        size = label.shape[1:]
        full = logits if in_strips else F.interpolate(logits, size=size, mode='bilinear')
        loss(full, label, ignore_index=1001).backward()
        return []

    return peak_rise(run, torch.device('cpu'))
