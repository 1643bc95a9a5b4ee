"""A logit or feature that is not a number shows in every loss, so that a training cannot go on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmseg.registry import MODELS
from torch import Tensor

import mmseg_ext.losses
import mmseg_ext.papers  # noqa: F401

LOGITS, FEATURES, IMAGES = (2, 3, 24, 24), (2, 4, 12, 12), (2, 3, 8, 8)


def label() -> Tensor:
    """Labels (2, 24, 24) of three classes, with an ignored frame."""
    classes = torch.arange(24).div(8, rounding_mode='floor').expand(2, 24, 24).clone()
    classes[:, :3] = 255
    return classes


def on_logits(loss: Any, logits: Tensor) -> Tensor:
    return loss(logits, label())


def on_prior(loss: Any, prior: Tensor) -> Tensor:
    return loss(prior, label(), (2, 2))[loss.loss_name]


def on_edges(loss: Any, edge: Tensor) -> Tensor:
    target = torch.zeros(edge.shape, dtype=torch.bool)
    target[..., 3] = True
    return loss(edge, target)


def on_maps(loss: Any, seg: Tensor) -> Tensor:
    return loss(seg, torch.ones(FEATURES), (24, 24))


def on_images(loss: Any, image: Tensor) -> Tensor:
    valid = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    return loss(image, torch.ones(IMAGES), valid)


def on_anchors(loss: Any, anchors: Tensor) -> Tensor:
    return loss(anchors, torch.tensor([0, 0, 1, 1, 2, 2]), torch.ones(6, dtype=torch.bool))


Call = Callable[[Any, Tensor], Tensor]
# Losses by type: options, shape of the input, and how it is called.
CASES: dict[str, list[tuple[dict, tuple[int, ...], Call]]] = {
    'WeightedCELoss': [
        (options, LOGITS, on_logits)
        for options in (
            {},
            dict(class_weight=[1.0, 2.0, 3.0]),
            *(
                dict(threshold=0.7, strict=strict, min_kept=n)
                for strict in (False, True)
                for n in (1, 100_000)
            ),
        )
    ],
    'ImageWeightedCELoss': [({}, LOGITS, on_logits)],
    'PixelSumBCELoss': [({}, LOGITS, on_logits)],
    'RMILoss': [(dict(pool=pool), LOGITS, on_logits) for pool in ('avg', 'max', 'interp')],
    'DualTaskLoss': [(dict(spatial_grad=grad), LOGITS, on_logits) for grad in (True, False)],
    'AffinityLoss': [
        (dict(ignore=ignore, degenerate=degenerate), (2, 4, 12, 12), on_prior)
        for ignore in ('class', 'mask')
        for degenerate in ('legacy', 'skip')
    ],
    'BalancedEdgeLoss': [
        (dict(double_sigmoid=twice), (2, 1, 8, 8), on_edges) for twice in (True, False)
    ],
    'FeatureAffinityLoss': [(dict(q=q, p=p), FEATURES, on_maps) for q in (1, 2) for p in (2, None)],
    'ReconstructionLoss': [({}, IMAGES, on_images)],
    'PixelContrastLoss': [({}, (6, 5), on_anchors)],
}


def test_every_loss_of_ours_has_a_case() -> None:
    names = {
        name
        for name, cls in MODELS.module_dict.items()
        if cls.__module__.startswith('mmseg_ext.') and name.endswith('Loss')
    }
    assert names == set(CASES)


@pytest.mark.parametrize('number', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('extent', ['a single value', 'all values'])
@pytest.mark.parametrize(
    ('name', 'options', 'shape', 'call'),
    [(name, *case) for name, cases in CASES.items() for case in cases],
    ids=lambda value: getattr(value, '__name__', str(value)),
)
def test_a_loss_of_nan_is_not_finite(
    name: str, options: dict, shape: tuple[int, ...], call: Call, extent: str, number: float
) -> None:
    values = torch.randn(shape)
    values[(...,) if extent == 'all values' else (1, *(n - 2 for n in shape[1:]))] = number
    values.requires_grad_()
    loss = call(MODELS.build(dict(type=name, **options)), values)
    loss.backward()
    assert not loss.isfinite() or values.grad.isfinite().all()
    if number != number:
        assert not loss.isfinite()
