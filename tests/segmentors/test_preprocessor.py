"""The data preprocessor refuses images that do not fit together."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample

from mmseg_ext.errors import UserError
from mmseg_ext.segmentors import CheckedDataPreProcessor

STATISTICS = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0], bgr_to_rgb=True)


def batch(*sizes: tuple[int, int], channels: int = 3) -> dict:
    torch.manual_seed(0)
    images = [torch.randint(256, (channels, *size)).to(torch.uint8) for size in sizes]
    labels = [PixelData(data=torch.zeros(1, *size, dtype=torch.int64)) for size in sizes]
    return dict(inputs=images, data_samples=[SegDataSample(gt_sem_seg=label) for label in labels])


@pytest.mark.parametrize('training', [True, False])
def test_good_batches_are_those_of_the_host(training: bool) -> None:
    ours, host = (
        cls(**STATISTICS, size_divisor=8)(batch((9, 13), (9, 13)), training)['inputs']
        for cls in (CheckedDataPreProcessor, SegDataPreProcessor)
    )
    assert torch.equal(ours, host)


def test_a_grey_image_is_three_equal_channels() -> None:
    preprocess = CheckedDataPreProcessor(**STATISTICS)
    grey = batch((5, 6), channels=1)
    colour = dict(grey, inputs=[image.expand(3, -1, -1) for image in grey['inputs']])
    assert torch.equal(preprocess(grey)['inputs'], preprocess(colour)['inputs'])


def test_images_larger_than_the_crop_must_be_equal() -> None:
    preprocess = CheckedDataPreProcessor(**STATISTICS, size=(16, 16))
    assert preprocess(batch((9, 13), (16, 4)), True)['inputs'].shape == (2, 3, 16, 16)
    with pytest.raises(UserError, match=r'crop them to data_preprocessor.size=\(16, 16\)'):
        preprocess(batch((9, 13), (9, 20)), True)


def test_integers_of_another_type_are_pixels_up_to_255() -> None:
    preprocess = CheckedDataPreProcessor(**STATISTICS)
    bytes_ = batch((5, 6))
    longs = dict(bytes_, inputs=[image.long() for image in bytes_['inputs']])
    assert torch.equal(preprocess(longs)['inputs'], preprocess(bytes_)['inputs'])
    with pytest.raises(UserError, match='integers from .* scale them to 0 to 255'):
        preprocess(dict(bytes_, inputs=[image.int() * 257 for image in bytes_['inputs']]))
