"""``layers/sizes.py`` against the host's own padding."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample

from mmseg_ext.layers.sizes import input_size, padding_of, size_of, unpadded_size, without_padding


@pytest.mark.parametrize('training', [True, False])
def test_padding_of_the_hosts_preprocessor_is_taken_off(training: bool) -> None:
    preprocessor = SegDataPreProcessor(size=(9, 13), test_cfg=dict(size=(9, 13)))
    image = torch.rand(3, 6, 8)
    label = PixelData(data=torch.zeros(1, 6, 8, dtype=torch.long))
    sample = SegDataSample(gt_sem_seg=label, metainfo=dict(img_shape=(6, 8)))
    data = preprocessor(dict(inputs=[image], data_samples=[sample]), training)
    (padded,), meta = data['inputs'], data['data_samples'][0].metainfo
    assert size_of(padded) == (9, 13)
    assert unpadded_size(meta, (9, 13)) == (6, 8)
    if not training:  # the host records it for predictions
        assert input_size(meta) == (9, 13)
    assert torch.equal(without_padding(padded, padding_of(meta)), image)


def test_padding_on_all_sides_is_taken_off_every_kind_of_map() -> None:
    padding = (1, 2, 3, 4)
    for shape in ((5, 7), (1, 5, 7), (2, 3, 5, 7)):
        x = torch.rand(shape)
        assert torch.equal(without_padding(F.pad(x, padding), padding), x)


def test_nothing_is_padded_without_a_word_of_it() -> None:
    x = torch.rand(2, 3, 5, 7)
    assert torch.equal(without_padding(x, padding_of({})), x)
    assert unpadded_size({}, size_of(x)) == (5, 7)


def test_an_image_larger_than_the_input_fills_it() -> None:
    assert unpadded_size(dict(img_shape=(40, 6, 3)), (20, 9)) == (20, 6)


def test_the_input_of_a_window_is_the_window() -> None:
    meta = dict(img_shape=torch.Size((6, 8)), pad_shape=(40, 60))
    assert input_size(meta) == (6, 8)
