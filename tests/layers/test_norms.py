"""``layers/norms.py``: which norms train on one image that is pooled to one value per channel."""

import pytest
from torch import nn

from mmseg_ext.errors import UserError
from mmseg_ext.layers.norms import require_several_images


def test_a_single_image_is_refused_with_a_sentence() -> None:
    norm = nn.BatchNorm2d(4)
    with pytest.raises(UserError, match='SomeHead pools an image .* two or more images'):
        require_several_images('SomeHead', norm, 1)
    require_several_images('SomeHead', norm, 2)
    require_several_images('SomeHead', norm.eval(), 1)


def test_other_norms_train_on_a_single_image() -> None:
    require_several_images('SomeHead', nn.GroupNorm(2, 4), 1)
    require_several_images('SomeHead', nn.Identity(), 1)
