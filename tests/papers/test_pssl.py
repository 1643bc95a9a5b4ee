"""PSSL: explanations, ranks, labels and the released lists."""

import pytest
import torch
from torch import Tensor, nn

from mmseg_ext.errors import UserError
from mmseg_ext.losses import WeightedCELoss
from mmseg_ext.papers.pssl import (
    consensus,
    deciles,
    explanation_map,
    labels,
    smoothgrad,
    top_decile,
)
from mmseg_ext.papers.pssl.released_list import image_and_class
from tests.oracles.pssl import deciles_of_sorted, smoothgrad_loop, smoothgrad_released
from tests.parity.case import Case, Kind, Results, difference, seeded_state

SMALLER = {
    'STDCNet': dict(channels=(8, 16, 32, 64, 128)),
    'STDCContextPathNet': dict(
        last_in_channels=(128, 64),
        out_channels=16,
        ffm_cfg=dict(in_channels=48, out_channels=32, scale_factor=4),
    ),
}


def classifier(channels: int = 6, classes: int = 5) -> nn.Sequential:
    """The classifier of the recorded cases."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * channels, classes),
    )


def run_loss(case: Case) -> Results:
    h = case.hyper
    keys = dict(ignore_index=h['ignore_index'])
    label = case.inputs['label']
    outputs: dict = {}
    for in_strips in (True, False):  # the last one is compared, and both with each other
        logits = case.inputs['logits'].clone().requires_grad_()
        options = dict(eps=h['eps'], in_strips=in_strips)
        loss = WeightedCELoss(background_weight=h['background_weight'], **options)
        value = loss(logits, label, **keys)
        value.backward()
        plain = WeightedCELoss(**options)(logits.detach(), label, **keys)
        before = outputs
        outputs = dict(loss=value.detach(), loss_unweighted=plain, grad=logits.grad)
        for name, result in before.items():
            assert difference(result, outputs[name].numpy()) <= 1e-5
    return outputs, dict(logits=outputs.pop('grad'))


def difference_of_gradients(ours: Tensor, reference) -> float:
    """As everywhere, but 1e-5 is the limit where the reference is 0: a tenth of 1e-4."""
    if not reference.any():
        return 10 * float(ours.abs().max())
    return difference(ours, reference)


def run_label(case: Case) -> Results:
    h = case.hyper
    numbers = {name: i for i, name in enumerate(h['synsets'])}
    image, index = image_and_class(h['list_line'], numbers)
    foreground = case.inputs['seg'] == h['foreground_value']
    assert image == h['image_path']
    return dict(label=labels(foreground, index, h['background'])), {}


def run_smoothgrad(case: Case) -> Results:
    h, images = case.hyper, case.inputs['image']
    state = seeded_state(case)
    gradients = []
    for i, channels in enumerate(h['conv_channels']):
        model = classifier(channels, h['num_classes'])
        names = {f'model{i}.conv.': '0.', f'model{i}.fc.': '4.'}
        for theirs, ours in names.items():
            weights = {
                key.removeprefix(theirs): state[key] for key in state if key.startswith(theirs)
            }
            model.get_submodule(ours[:-1]).load_state_dict(weights)
        gradients.append(
            smoothgrad(
                model,
                images,
                case.inputs.get('labels') if h['labels_given'] else None,
                n_samples=h['n_samples'],
                noise_amount=h['noise_amount'],
                noise=case.inputs[f'noise{i}'],
            )
        )
    grads = h['gradient_factor'] * torch.stack(gradients)
    maps = torch.stack([explanation_map(g) for g in grads])
    return dict(grads=grads, consensus=consensus(maps, 'none')), {}


KINDS = {
    'loss': Kind(run_loss, 1e-5, 1e-4, difference_of_gradients),
    'label': Kind(run_label, 0),
    'smoothgrad': Kind(run_smoothgrad, 1e-4),
}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 12, 14)


@pytest.fixture
def noise(images: Tensor) -> Tensor:
    return torch.randn(7, *images.shape)


@pytest.mark.parametrize('chunk', [1, 5, 6, 100])
def test_smoothgrad_is_the_loop_over_images_and_draws(images, noise, chunk):
    model, target = classifier(), torch.tensor([4, 0, 2])
    ours = smoothgrad(model, images, target, n_samples=7, noise=noise, chunk=chunk)
    loop = smoothgrad_loop(model, images, target, noise)
    torch.testing.assert_close(ours, loop, rtol=1e-4, atol=1e-7 * float(loop.abs().max()) + 1e-9)


def test_smoothgrad_is_the_released_form_for_a_single_image(images, noise):
    model, target = classifier(), torch.tensor([1])
    ours = smoothgrad(model, images[:1], target, n_samples=7, noise=noise[:, :1])
    released = smoothgrad_released(model, images[:1], target, noise[:, :1])
    torch.testing.assert_close(ours, released, rtol=1e-4, atol=1e-9)


def test_without_noise_it_is_the_gradient(images):
    model, target = classifier(), torch.tensor([1, 1, 3])
    x = images.clone().requires_grad_()
    model(x).softmax(1).gather(1, target[:, None]).sum().backward()
    ours = smoothgrad(model, images, target, n_samples=3, noise_amount=0.0)
    torch.testing.assert_close(ours, x.grad)


@pytest.mark.parametrize('of', ['prob', 'logit', 'loss'])
def test_the_score_is_chosen(images, of):
    """A linear classifier: the logit's gradient is a row of its weight, whatever the noise."""
    linear = nn.Linear(3 * 12 * 14, 4).double()
    model = nn.Sequential(nn.Flatten(), linear)
    target = torch.tensor([3, 0, 3])
    ours = smoothgrad(model, images.double(), target, n_samples=2, noise_amount=0.0, of=of)
    logits = model(images.double())
    one_hot = nn.functional.one_hot(target, 4)
    probs = logits.softmax(1)
    slopes = {
        'prob': probs.gather(1, target[:, None]) * (one_hot - probs),
        'logit': one_hot,
        'loss': probs - one_hot,
    }[of]
    expected = (slopes.double() @ linear.weight).view_as(ours)
    torch.testing.assert_close(ours, expected)
    if of == 'logit':
        noisy = smoothgrad(model, images.double(), target, n_samples=2, of=of)
        torch.testing.assert_close(noisy, expected)


def test_draws_depend_on_the_generator_alone(images):
    """Not on ``chunk``, and each image has noise of its own range."""
    model, target = classifier(), torch.tensor([0, 0, 0])

    def run(seed: int, chunk: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        options = dict(n_samples=5, generator=generator, chunk=chunk)
        return smoothgrad(model, images, target, **options)

    torch.testing.assert_close(run(3, 1), run(3, 100))
    assert not torch.allclose(run(3, 100), run(4, 100))


def test_without_target_it_is_the_predicted_class(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 14, 5))
    target = model(images).argmax(1)
    assert len(target.unique()) > 1
    options = dict(n_samples=2, noise_amount=0.0)
    ours, expected = (smoothgrad(model, images, t, **options) for t in (None, target))
    assert torch.equal(ours, expected)


def test_the_model_stays_as_it_is(images):
    model = nn.Sequential(classifier(), nn.Dropout(0.5))
    model.train()
    model[1].eval()
    model[0][0].bias.requires_grad_(False)
    smoothgrad(model, images, n_samples=2)
    assert model.training and model[0].training and not model[1].training
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():  # and inside of it there are gradients
        assert smoothgrad(model, images, n_samples=2).any()


def test_wrong_arguments_are_refused(images, noise):
    model = classifier()
    with pytest.raises(UserError, match="of='probability' must be one of prob, logit, loss"):
        smoothgrad(model, images, of='probability')
    with pytest.raises(UserError, match='n_samples=0 must be at least 1'):
        smoothgrad(model, images, n_samples=0)
    with pytest.raises(UserError, match=r'50 draws for images of \(3, 3, 12, 14\) are needed'):
        smoothgrad(model, images, noise=noise)
    with pytest.raises(UserError, match="normalize='std' must be one of none, l1, l2, max"):
        consensus(torch.rand(2, 1, 4, 4), 'std')


@pytest.mark.parametrize('normalize', ['none', 'l1', 'l2', 'max'])
def test_a_consensus_has_no_order_and_no_scale(normalize):
    maps = torch.rand(3, 2, 5, 6, dtype=torch.float64)
    maps[1, 0] = 0  # a classifier without gradients
    result = consensus(maps, normalize)
    torch.testing.assert_close(consensus(maps[[2, 0, 1]], normalize), result)
    scaled = consensus(maps * torch.tensor([1.0, 50.0, 1.0]).view(3, 1, 1, 1), normalize)
    assert torch.allclose(scaled, result) == (normalize != 'none')
    assert result.isfinite().all()
    if normalize == 'none':
        torch.testing.assert_close(result, maps.mean(0))
    if normalize == 'l2':
        sizes = [m / (m.norm() or 1) for m in maps[:, 1]]
        torch.testing.assert_close(result[1], sum(sizes) / 3)


@pytest.mark.parametrize('values', [1, 2, 3, 10**6])
@pytest.mark.parametrize('size', [(1, 1), (1, 9), (2, 5), (3, 7), (20, 31)])
def test_deciles_are_those_of_the_sorted_pixels(size, values):
    importance = torch.randint(values, (4, *size)).float()
    ours = deciles(importance)
    expected = torch.stack([deciles_of_sorted(image) for image in importance])
    assert torch.equal(ours, expected) and ours.dtype == torch.uint8
    top = top_decile(importance)
    assert torch.equal(top, ours == 9)
    assert (top.sum((1, 2)) == size[0] * size[1] // 10).all()
    assert torch.equal(deciles(3 * importance**3 - 5), ours)  # ranks alone count


def test_a_label_is_the_class_or_background():
    top = top_decile(torch.rand(2, 30, 40))
    result = labels(top, 700, 1000)
    assert result.dtype == torch.int64 and result.unique().tolist() == [700, 1000]
    assert torch.equal(result == 700, top)


def test_an_image_and_its_label_are_flipped_together():
    """Of an explanation without ties, nothing depends on the order of the pixels."""
    importance = torch.randperm(35 * 20).view(20, 35).float()
    assert torch.equal(top_decile(importance.flip(-1)), top_decile(importance).flip(-1))


@pytest.mark.parametrize(
    ('line', 'sentence'),
    [
        ('train/n01/n01_3.png', 'no line of a released list, because it has no .JPEG'),
        ('train/n07/n07_3.JPEG_eiseg.npz', 'of the class n07, which the file of 2 synsets does'),
    ],
)
def test_lines_that_are_none_are_refused(line, sentence):
    with pytest.raises(UserError, match=sentence):
        image_and_class(line, dict(n02=0, n01=1))


def test_a_class_is_the_number_of_its_line_and_no_rank():
    line = 'train/x/n01_3_4.JPEG_eiseg.npz'
    assert image_and_class(line, dict(n02=0, n01=1)) == ('train/x/n01_3_4.JPEG', 1)
