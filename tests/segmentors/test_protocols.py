"""Every part of ours that explains itself has exactly the signature that its protocol declares."""

import inspect
from typing import Any

import pytest
import torch
from mmseg.models import BaseSegmentor
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import DATA_SAMPLERS, DATASETS, MODELS

from mmseg_ext.engine.train_data import ResumableSampler
from mmseg_ext.layers.feature_tap import WrapperHead
from mmseg_ext.papers.oneformer import OneFormerHead
from mmseg_ext.papers.panet.head import PANetInstanceHead
from mmseg_ext.segmentors.protocols import (
    ExplainsBackbone,
    ExplainsHead,
    ExplainsModel,
    HasAuxiliaryLogits,
    HasEpochs,
    HasLabelIds,
    HasPredictionLoss,
    NeedsSegmentor,
    TakesSideInputs,
)
from tests.papers.test_gscnn import HEAD
from tests.tiny import CONFIG_DIR, tiny

MODELS.get('HMSA')  # imports everything that is registered
OURS = {
    name: cls
    for registry in (MODELS, DATASETS, DATA_SAMPLERS)
    for name, cls in registry.module_dict.items()
    if cls.__module__.startswith('mmseg_ext.')
}
HEADS = BaseDecodeHead | WrapperHead | OneFormerHead | PANetInstanceHead
EXPLAINERS = {name: cls for name, cls in OURS.items() if callable(getattr(cls, 'explain', None))}


def protocol_of(cls: type) -> Any:
    if issubclass(cls, BaseSegmentor):
        return ExplainsModel
    return ExplainsHead if issubclass(cls, HEADS) else ExplainsBackbone


def parameters(method: Any) -> list[tuple]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]


def test_the_walk_meets_every_kind_of_part() -> None:
    names = {kind: set() for kind in (ExplainsModel, ExplainsHead, ExplainsBackbone)}  # type: dict
    for name, cls in EXPLAINERS.items():
        names[protocol_of(cls)].add(name)
    assert names[ExplainsModel] >= {'WindowedEncoderDecoder', 'HMSA', 'DSRL', 'GSCNN', 'MagNet'}
    assert names[ExplainsHead] >= {
        'CPNetHead',
        'DANetHead',
        'FastFCNEncHead',
        'GSCNNHead',
        'HANetHead',
        'OneFormerHead',
        'PixelContrastHead',
        'SPNetHead',
    }
    assert names[ExplainsBackbone] >= {'SPNetResNet', 'FastFCNJPU', 'JPUX'}


@pytest.mark.parametrize('name', EXPLAINERS)
def test_a_part_explains_itself_as_its_protocol_says(name: str) -> None:
    cls = EXPLAINERS[name]
    protocol = protocol_of(cls)
    assert isinstance(cls, protocol)
    assert parameters(cls.explain) == parameters(protocol.explain)


@pytest.mark.parametrize(
    ('protocol', 'names'),
    [
        (TakesSideInputs, {'HANetHead'}),
        (HasAuxiliaryLogits, {'OCRNetHead', 'DANetHead'}),
        (HasPredictionLoss, {'MagNet'}),
        (HasLabelIds, {'CityscapesIdsDataset'}),
        (HasEpochs, {'ClassUniformSampler'}),
    ],
    ids=lambda x: getattr(x, '__name__', ''),
)
def test_other_offers_are_met_by_the_parts_that_make_them(protocol: Any, names: set[str]) -> None:
    assert names <= {name for name, cls in OURS.items() if isinstance(cls, protocol)}


def test_side_inputs_are_asked_for_in_the_same_way() -> None:
    heads = [cls for cls in OURS.values() if hasattr(cls, 'side_inputs')]
    heads = [cls for cls in heads if not issubclass(cls, BaseSegmentor)]
    assert heads
    for cls in heads:
        assert parameters(cls.side_inputs) == parameters(TakesSideInputs.side_inputs)


@pytest.mark.parametrize('shape_stream', [True, False])
def test_only_a_head_with_a_shape_stream_needs_its_segmentor(shape_stream: bool) -> None:
    cfg = dict(HEAD, type='GSCNNHead', num_classes=5, shape_stream=shape_stream)
    head = MODELS.build(cfg)
    assert isinstance(head, NeedsSegmentor)
    assert head.needs_segmentor == ('GSCNN' if shape_stream else None)


def test_a_model_without_maps_of_pixels_says_so() -> None:
    model = tiny(CONFIG_DIR / 'magnet' / 'hrnet18s_ocr_streets.py')
    assert isinstance(model, ExplainsModel) and model.explains and not model.explains_pixels
    with pytest.raises(ValueError, match='MagNet does not explain single pixels: call explain'):
        model.explain(torch.zeros(1, 3, 64, 96), pixel=(1, 1))


def test_a_sampler_without_epochs_or_seed_is_left_alone() -> None:
    sampler = ResumableSampler([3, 1], endless=False)
    sampler.set_seed(1)
    assert list(sampler) == [(3, 0, 0), (1, 0, 1)]
