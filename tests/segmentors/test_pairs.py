"""Heads that need a segmentor are refused elsewhere, however deep they lie."""

from typing import Any

import pytest
from mmseg.registry import MODELS

from tests.inference.tiny_explainer import model_config

MODELS.get('HMSA')  # imports everything that is registered
LEVELS = dict(in_channels=[6, 6, 6, 6], in_index=[0, 0, 0, 0])
GSCNN_HEAD = dict(type='GSCNNHead', channels=8, fine_channels=4, num_classes=3, **LEVELS)
FCN = dict(type='FCNHead', in_channels=6, in_index=0, channels=8, num_classes=3)


@pytest.mark.parametrize('segmentor', ['WindowedEncoderDecoder', 'DSRL'])
@pytest.mark.parametrize(
    ('head', 'sentence'),
    [
        (GSCNN_HEAD, "only type='GSCNN' gives"),
        (dict(type='PixelContrastHead', head=GSCNN_HEAD), "only type='GSCNN' gives"),
        (dict(type='HMSAHead', head=FCN), "only type='HMSA' uses"),
    ],
    ids=['alone', 'wrapped', 'wrapper'],
)
def test_another_segmentor_is_refused(segmentor: str, head: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        MODELS.build(model_config(type=segmentor, decode_head=head))


def test_a_head_in_hmsas_head_is_asked_too() -> None:
    head = dict(type='HMSAHead', head=GSCNN_HEAD)
    with pytest.raises(ValueError, match="only type='GSCNN' gives"):
        MODELS.build(model_config(type='HMSA', decode_head=head))


@pytest.mark.parametrize('segmentor', ['EncoderDecoder', 'WindowedEncoderDecoder'])
def test_a_head_that_needs_no_segmentor_is_built_in_any(segmentor: str) -> None:
    head = dict(GSCNN_HEAD, shape_stream=False)
    assert MODELS.build(model_config(type=segmentor, decode_head=head)).num_classes == 3


@pytest.mark.parametrize('kind', ['FCNHead', 'NoSuchHead'])
def test_hmsa_names_the_head_that_it_got(kind: str) -> None:
    with pytest.raises(ValueError, match=f'HMSA needs one head .*, got {kind}'):
        MODELS.build(model_config(type='HMSA', decode_head=dict(FCN, type=kind)))
