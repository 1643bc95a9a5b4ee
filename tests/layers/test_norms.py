"""``layers/norms.py``: norms that stay, and norms that train on one value per channel."""

import pytest
import torch
from mmcv.cnn import build_norm_layer
from torch import nn

from mmseg_ext.errors import UserError
from mmseg_ext.layers.norms import require_several_images, single_values_refused


def test_a_single_image_is_refused_with_a_sentence() -> None:
    norm = nn.BatchNorm2d(4)
    with pytest.raises(UserError, match='SomeHead pools an image .* two or more images'):
        require_several_images('SomeHead', norm, 1)
    require_several_images('SomeHead', norm, 2)
    require_several_images('SomeHead', norm.eval(), 1)


def test_other_norms_train_on_a_single_image() -> None:
    require_several_images('SomeHead', nn.GroupNorm(2, 4), 1)
    require_several_images('SomeHead', nn.Identity(), 1)


def test_a_norm_on_one_value_is_named_while_a_batch_of_one_trains() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))
    with pytest.raises(UserError, match='1 gets a single value'), single_values_refused(model, 1):
        model(torch.ones(1, 4, 3, 3))
    with single_values_refused(model, 2):
        model(torch.ones(2, 4, 3, 3))
    with single_values_refused(model.eval(), 1):
        model(torch.ones(1, 4, 3, 3))


def test_a_frozen_norm_is_a_norm_in_eval_mode_with_the_same_names() -> None:
    norm = nn.BatchNorm2d(4)
    norm(torch.randn(2, 4, 5, 6) + 3)
    name, frozen = build_norm_layer(dict(type='FrozenBN', requires_grad=False), 4)
    assert name == 'bn' and not any(p.requires_grad for p in frozen.parameters())
    frozen.load_state_dict(norm.state_dict(), strict=True)
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(frozen.train()(x), norm.eval()(x), rtol=0, atol=0)
    torch.testing.assert_close(frozen.state_dict(), norm.state_dict(), rtol=0, atol=0)
