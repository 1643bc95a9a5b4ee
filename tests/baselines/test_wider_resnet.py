"""WiderResNetA2's shapes and memory option, and the ResNet that returns its stem."""

import copy

import pytest
import torch
from mmseg.models.backbones import ResNetV1c

from mmseg_ext.baselines import StemResNet, WiderResNetA2
from mmseg_ext.baselines.wider_resnet import PreActBlock
from mmseg_ext.layers.recomputing import run_twice


def test_levels_have_the_papers_widths_and_parameters() -> None:
    with torch.device('meta'):
        levels = WiderResNetA2()(torch.empty(1, 3, 64, 128))
        count = sum(p.numel() for p in WiderResNetA2().parameters())
    strides = {64: 1, 128: 2, 256: 4, 512: 8, 4096: 8}
    assert [(x.shape[1], 64 // x.shape[2]) for x in levels] == list(strides.items())
    assert round(count / 1e6, 2) == 105.06


def test_strides_round_up() -> None:
    levels = WiderResNetA2(base_channels=2)(torch.zeros(1, 3, 57, 83))
    sizes = [(57, 83), (29, 42), (15, 21), (8, 11), (8, 11)]
    assert [tuple(x.shape[2:]) for x in levels] == sizes


def test_running_modules_twice_gives_the_same_gradients_and_statistics() -> None:
    torch.manual_seed(0)
    plain = WiderResNetA2(base_channels=2).train()
    twice = copy.deepcopy(plain)
    twice.with_cp = True
    grads = []
    for model in (plain, twice):
        for _ in range(2):
            torch.manual_seed(1)  # of the dropout
            loss = model(torch.ones(2, 3, 16, 24).cumsum(3))[-1].square().mean()
            loss.backward(retain_graph=True)
            loss.backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*grads)
    statistics = dict(twice.named_buffers())
    torch.testing.assert_close(statistics, dict(plain.named_buffers()), rtol=0, atol=0)
    assert statistics['mod7.0.norms.0.num_batches_tracked'] == 2


def test_a_compiled_block_counts_a_batch_once_too() -> None:
    sizes = dict(stride=1, dilation=1, dropout_ratio=0.0, norm_cfg=dict(type='BN'))
    block = PreActBlock(2, (2, 2), **sizes).train()
    compiled = torch.compile(run_twice, backend='aot_eager')
    compiled(block, torch.randn(2, 2, 8, 8)).sum().backward()
    assert all(norm.num_batches_tracked == 1 for norm in block.norms)


def test_modules_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match='must be numbers of modules, 1 to 7'):
        WiderResNetA2(out_indices=(0, 7))


def test_the_stem_comes_before_the_levels_of_the_host() -> None:
    torch.manual_seed(0)
    sizes = dict(depth=18, base_channels=4, stem_channels=8)
    ours, host = StemResNet(**sizes), ResNetV1c(**sizes)
    host.load_state_dict(ours.state_dict())
    for model in (ours, host):
        model.eval()  # the host's returns nothing
    image = torch.randn(1, 3, 33, 50)
    stem, *levels = ours(image)
    assert stem.shape == (1, 8, 17, 25)
    torch.testing.assert_close(tuple(levels), host(image), rtol=0, atol=0)
