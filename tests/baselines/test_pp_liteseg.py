"""PP-LiteSeg: the attention of a fusion, the pooled context, sizes, and errors."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ext.baselines.pp_liteseg import AttentionFusion, SimplePyramidPooling
from mmseg_ext.errors import UserError


def head_of(**changes: Any) -> Any:
    init_default_scope('mmseg')
    head = dict(type='PPLiteSegHead', in_channels=[8, 16, 32], decoder_channels=(4, 6, 8))
    return MODELS.build(head | dict(num_classes=5) | changes)


def without_norm(conv: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.conv.weight, conv.conv.bias, padding=conv.conv.padding)


def test_a_fusion_is_a_mixture_with_a_weight_for_each_pixel() -> None:
    fusion: Any = AttentionFusion(3, 4, 5, None, False)
    coarse, fine = torch.randn(2, 4, 3, 4), torch.randn(2, 3, 6, 7)
    low = without_norm(fusion.fine_conv, fine).relu()
    up = F.interpolate(coarse, (6, 7), mode='bilinear', align_corners=False)
    statistics = torch.stack([up.mean(1), up.max(1)[0], low.mean(1), low.max(1)[0]], dim=1)
    weight = without_norm(fusion.attention, statistics).sigmoid()
    assert weight.shape == (2, 1, 6, 7)
    expected = without_norm(fusion.out_conv, weight * up + (1 - weight) * low).relu()
    torch.testing.assert_close(fusion(coarse, fine), expected)


def test_the_context_adds_averages_over_bins() -> None:
    pooling: Any = SimplePyramidPooling(3, 4, (1, 2), None, False)
    x = torch.randn(2, 3, 4, 6)
    whole = without_norm(pooling.convs[0], x.mean((2, 3), keepdim=True)).relu()
    bins = x.unflatten(2, (2, 2)).unflatten(4, (2, 3)).mean((3, 5))
    quarters = without_norm(pooling.convs[1], bins).relu()
    total = whole + F.interpolate(quarters, (4, 6), mode='bilinear', align_corners=False)
    expected = without_norm(pooling.out_conv, total).relu()
    torch.testing.assert_close(pooling(x), expected)


def test_odd_sizes_and_a_single_image_in_training() -> None:
    head = head_of().train()
    levels = [torch.randn(1, 8, 13, 17), torch.randn(1, 16, 7, 9), torch.randn(1, 32, 4, 5)]
    levels = [level.requires_grad_() for level in levels]
    logits = head(levels)
    assert logits.shape == (1, 5, 13, 17)
    logits.sum().backward()
    assert all(level.grad.abs().sum() > 0 for level in levels)


def test_the_widths_of_the_paper() -> None:
    head = head_of(in_channels=[256, 512, 1024], decoder_channels=(64, 96, 128))
    assert head.context.out_conv.conv.out_channels == 128
    assert [fusion.out_conv.conv.out_channels for fusion in head.fusions] == [96, 64]
    assert head.conv_seg.in_channels == 64


def test_errors_say_what_to_do() -> None:
    with pytest.raises(UserError, match='decoder_channels=.* must have a width for each of the 3'):
        head_of(decoder_channels=(4, 6))
    with pytest.raises(UserError, match='reads several levels'):
        head_of(in_channels=8)
