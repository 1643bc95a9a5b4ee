"""``layers/pixel_values.py`` undoes what the host's preprocessor does."""

import pytest
import torch
from mmengine.model import BaseDataPreprocessor
from mmseg.models import SegDataPreProcessor

from mmseg_ext.layers.pixel_values import denormalize, normalized_black

NORMALIZES = SegDataPreProcessor(mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4])


@pytest.mark.parametrize('preprocessor', [NORMALIZES, SegDataPreProcessor()])
def test_loaded_values_come_back(preprocessor: SegDataPreProcessor) -> None:
    loaded = torch.randint(256, (2, 3, 5, 7)).float()
    black = torch.zeros(3, 5, 7)
    inputs = preprocessor(dict(inputs=[*loaded, black]))['inputs']
    torch.testing.assert_close(denormalize(inputs[:2], preprocessor), loaded)
    assert torch.equal(normalized_black(inputs, preprocessor).expand(3, 5, 7), inputs[2])


def test_a_preprocessor_without_normalisation_changes_nothing() -> None:
    images = torch.rand(2, 3, 5, 7)
    assert denormalize(images, BaseDataPreprocessor()) is images
    assert not normalized_black(images, BaseDataPreprocessor()).any()
