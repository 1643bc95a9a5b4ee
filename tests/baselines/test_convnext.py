"""ConvNeXt: levels, and blocks that an image skips."""

import torch
from torch import nn

from mmseg_ext.baselines import ConvNeXt


def test_levels_have_their_strides_and_are_normalised() -> None:
    model = ConvNeXt(depths=(1, 1, 2, 1), channels=(4, 8, 12, 16)).eval()
    levels = model(torch.randn(2, 3, 64, 96))
    sizes = [(4, 16, 24), (8, 8, 12), (12, 4, 6), (16, 2, 3)]
    assert [tuple(level.shape[1:]) for level in levels] == sizes
    for level in levels:
        torch.testing.assert_close(level.mean(1), torch.zeros_like(level[:, 0]), atol=1e-5, rtol=0)


def test_without_a_scale_a_block_is_the_identity_and_rates_rise() -> None:
    model = ConvNeXt(depths=(1, 1, 2, 1), channels=(4, 8, 12, 16), drop_path_rate=0.4)
    block = model.stages[2][1]
    nn.init.zeros_(block.gamma)
    x = torch.randn(1, 12, 5, 5)
    assert torch.equal(block.eval()(x), x)
    rates = [block.drop_path.drop_prob for stage in model.stages for block in stage]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.4, 5))
