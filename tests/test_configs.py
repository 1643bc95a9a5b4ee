"""What holds for the model of every config, tested once for each kind of model."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from mmseg_ext.errors import UserError
from tests.tiny import different_configs, make_batch, tiny, total_loss

pytestmark = pytest.mark.parametrize(
    'path', different_configs(), ids=lambda p: f'{p.parent.name}/{p.stem}'
)


@functools.cache
def shared(path: Path) -> nn.Module:
    """One shrunk model per config, whose memory has seen a batch; who changes it takes a copy."""
    model = tiny(path)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 0 and not parameter:  # a gate that starts shut hides all behind it
                parameter.fill_(0.5)
            if parameter.ndim > 1 and not parameter.any():  # and so does a matrix of zeros
                nn.init.normal_(parameter, std=0.02)
        model.train().loss(*make_batch(model))
    return model


@pytest.fixture
def model(path: Path) -> nn.Module:
    return copy.deepcopy(shared(path))


@pytest.mark.parametrize('size', [(64, 64), (65, 97), (48, 130)], ids=str)
def test_logits_have_the_size_of_the_image(model: nn.Module, size: tuple[int, int]) -> None:
    images, samples = make_batch(model, size=size)
    results = model.eval().predict(images, samples)
    for result in results:
        assert result.seg_logits.data.shape == (model.num_classes, *size)
        assert result.pred_sem_seg.data.shape == (1, *size)


@pytest.mark.parametrize('value', [200, -1])
def test_a_label_that_is_no_class_is_refused(model: nn.Module, value: int) -> None:
    images, samples = make_batch(model)
    samples[1].gt_sem_seg.data[..., 3, 5] = value
    with pytest.raises(UserError, match=f'a label holds the value {value}, but the classes are 0'):
        model.train().loss(images, samples)


def test_images_without_meaning_are_refused(model: nn.Module) -> None:
    images, samples = make_batch(model)
    nan, infinite = images.clone(), images.clone()
    nan[0, 0, 3, 5], infinite[1, 2, 0, 0] = float('nan'), float('inf')
    wrong = [
        (nan, 'NaN or infinite'),
        (infinite, 'NaN or infinite'),
        (
            torch.cat([images, images[:, :1]], 1),
            r'\(2, 4, 65, 97\), the model takes \(N, 3, H, W\)',
        ),
        (images[:0], 'has no pixels'),
    ]
    for batch, sentence in wrong:
        with pytest.raises(UserError, match=sentence):
            model.eval().predict(batch, samples[: len(batch)])
        with pytest.raises(UserError, match=sentence):
            model.train().loss(batch, samples[: len(batch)])


@pytest.mark.parametrize('ignored', [0.0, 0.5, 1.0])
def test_every_parameter_learns_whatever_is_ignored(model: nn.Module, ignored: float) -> None:
    loss = total_loss(model.train(), make_batch(model, ignored=ignored))
    assert loss.isfinite()
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f'{name} is not connected to the loss'
            assert parameter.grad.isfinite().all(), name
    if not ignored:
        idle = [n for n, p in model.named_parameters() if p.requires_grad and not p.grad.any()]
        assert not idle


def test_every_loss_of_a_model_of_nan_is_nan(model: nn.Module) -> None:
    for parameter in model.train().parameters():
        nn.init.constant_(parameter, torch.nan)
    losses = model.loss(*make_batch(model))
    finite = [n for n, value in losses.items() if 'loss' in n and value.isfinite().all()]
    assert not finite


def test_a_few_steps_on_one_batch_lower_the_loss(model: nn.Module) -> None:
    batch = make_batch(model, size=(64, 96))
    optimizer = torch.optim.Adam(model.train().parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = total_loss(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-2:]) < losses[0]


def test_saved_weights_give_the_same_logits(model: nn.Module, path: Path) -> None:
    images, _ = make_batch(model)
    other = tiny(path)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(images), model.eval()(images), rtol=0, atol=0)


def test_an_image_does_not_depend_on_its_batch_mates(model: nn.Module) -> None:
    images, _ = make_batch(model.eval().double())
    images = images.double()
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_bf16_autocast_trains(model: nn.Module) -> None:
    with torch.autocast('cpu', torch.bfloat16):
        loss = total_loss(model.train(), make_batch(model))
    assert loss.dtype == torch.float32 and loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
