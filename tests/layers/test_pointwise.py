"""``layers/pointwise.py`` and ``pointwise_of_levels`` against convolutions of concatenated maps."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_ext.layers.levels import pointwise_of_levels
from mmseg_ext.layers.pointwise import pointwise_of_maps, pointwise_products

Shape = tuple[int, int]


def maps(*shapes: Shape) -> list[Tensor]:
    """Maps of 2, 3, 4, ... channels, float64: gradients of float32 differ by their rounding."""
    return [
        torch.randn(2, i, *shape, dtype=torch.double) for i, shape in enumerate(shapes, start=2)
    ]


def check_value_and_gradient(conv: nn.Conv2d, value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected)
    grads = [torch.autograd.grad(x.square().sum(), [*conv.parameters()]) for x in (value, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize(
    'shapes',
    [
        [(5, 7), (5, 7), (5, 7)],
        [(1, 1), (5, 7), (5, 7)],
        [(5, 7), (5, 1), (1, 1)],
        [(1, 1), (1, 7), (1, 7)],
        [(1, 1), (1, 1)],
        [(5, 7)],
    ],
    ids=str,
)
def test_parts_of_one_row_or_column_count_everywhere(shapes: list[Shape], bias: bool) -> None:
    parts = maps(*shapes)
    conv = nn.Conv2d(sum(x.shape[1] for x in parts), 6, 1, bias=bias).double()
    size = max(h for h, _ in shapes), max(w for _, w in shapes)
    together = torch.cat([x.expand(-1, -1, *size) for x in parts], dim=1)
    check_value_and_gradient(conv, pointwise_of_maps(conv, parts), conv(together))


@pytest.mark.parametrize('align_corners', [True, False])
def test_levels_are_resized_to_the_first(align_corners: bool) -> None:
    levels = maps((8, 12), (4, 6), (3, 3), (1, 1))
    conv = nn.Conv2d(sum(x.shape[1] for x in levels), 6, 1).double()
    resized = [F.interpolate(x, (8, 12), None, 'bilinear', align_corners) for x in levels]
    value = pointwise_of_levels(conv, levels, align_corners)
    check_value_and_gradient(conv, value, conv(torch.cat(resized, dim=1)))


def test_a_part_is_made_when_its_output_is_asked_for() -> None:
    steps: list[str] = []

    def parts() -> Iterator[Tensor]:
        for i in range(2):
            steps.append(f'part {i}')
            yield torch.zeros(1, 1, 3, 3)

    for i, _ in enumerate(pointwise_products(nn.Conv2d(2, 1, 1), parts())):
        steps.append(f'output {i}')
    assert steps == ['part 0', 'output 0', 'part 1', 'output 1']


@pytest.mark.parametrize('channels', [6, 4], ids=['too_few', 'too_many'])
def test_other_channels_are_refused_as_by_any_convolution(channels: int) -> None:
    conv, parts = nn.Conv2d(channels, 6, 1).double(), maps((4, 4), (4, 4))
    with pytest.raises(RuntimeError, match='channels'):
        pointwise_of_maps(conv, parts)
    with pytest.raises(RuntimeError, match='channels'):
        pointwise_of_levels(conv, parts, True)
