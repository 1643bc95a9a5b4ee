"""Properties of DANet: its attentions against plain formulas and the host's, its limits."""

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.structures import PixelData
from mmseg.models.decode_heads.da_head import CAM, PAM, DAHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.config import prepare
from mmseg_ext.convert import convert
from mmseg_ext.papers import danet
from mmseg_ext.papers.danet import (
    ChannelAttention,
    DANetHead,
    PositionAttention,
    attend,
    attention_weights,
)
from mmseg_ext.visualization.pictures import draw_maps
from tests.oracles.danet import attend_slow, channel_weights_slow
from tests.tiny import CONFIG_DIR

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'DANetHead': dict(channels=16),
}

HEAD: dict[str, Any] = dict(in_channels=32, num_classes=5, norm_cfg=dict(type='BN'))


def opened(module: nn.Module) -> nn.Module:
    """The same, with gates that let half of the attention through."""
    for name, parameter in module.named_parameters():
        if name.endswith('gamma.scale'):
            nn.init.constant_(parameter, 0.5)
    return module


def pair() -> tuple[DANetHead, DAHead]:
    """Our head and the host's, of equal weights."""
    loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    host = opened(DAHead(**HEAD, channels=8, pam_channels=1, align_corners=True, loss_decode=loss))
    ours = DANetHead(**HEAD)
    ours.load_state_dict(host.state_dict())
    return ours, host


def samples(size: tuple[int, int], count: int = 2) -> list[SegDataSample]:
    label = torch.randint(5, (count, 1, *size), generator=torch.Generator().manual_seed(2))
    label[..., :3] = 255
    return [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in label]


@pytest.fixture(params=[2**24, 100, 1], ids=['one block', 'some blocks', 'row by row'])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(danet, 'ON_A_CPU', request.param)
    return request.param


# The attention in blocks


def test_attention_and_its_gradients_are_those_of_the_plain_formula(block: int) -> None:
    inputs = [torch.randn(2, c, 17, dtype=torch.float64, requires_grad=True) for c in (3, 3, 5)]
    ours, slow = attend(*inputs), attend_slow(*inputs)
    torch.testing.assert_close(ours, slow)
    weight = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((slow * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(attend, inputs)


@pytest.mark.parametrize('size', [(9, 17), (1, 1), (1, 13)], ids=str)
def test_position_attention_equals_the_hosts(block: int, size: tuple[int, int]) -> None:
    ours, host = opened(PositionAttention(16, 4)), PAM(16, 4)
    host.load_state_dict(ours.state_dict())
    results = []
    x = torch.randn(2, 16, *size)
    weight = torch.randn_like(x)
    for module in (ours, host):
        x = x.detach().requires_grad_()
        y = module(x)
        (y * weight).sum().backward()
        results.append(
            [y, x.grad, *(p.grad for n, p in module.named_parameters() if 'key' not in n)]
        )
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6 * max(1, b.abs().max().item()))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_energies_are_not_rounded_to_half_precision(dtype: torch.dtype) -> None:
    query, key = (4 * torch.randn(2, 16, 40).to(dtype) for _ in range(2))
    exact = (query.double().mT @ key.double()).softmax(-1)
    with torch.autocast('cpu', dtype):
        ours = attention_weights(query, key)
        rounded = (query.mT @ key).float().softmax(-1)
    assert (ours - exact).abs().max() < 1e-4
    assert (rounded - exact).abs().max() > 1e-2


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_differs_by_its_own_rounding(block: int, dtype: torch.dtype) -> None:
    narrow = [torch.randn(2, c, 60).to(dtype).requires_grad_() for c in (4, 4, 8)]
    exact = [x.detach().double().requires_grad_() for x in narrow]
    weight = torch.randn(2, 8, 60).to(dtype)
    with torch.autocast('cpu', dtype):
        ours = attend(*narrow)
        assert ours.dtype == dtype
        got = [ours, *torch.autograd.grad(ours, narrow, weight)]
    plain = attend(*exact)
    for a, b in zip(got, [plain, *torch.autograd.grad(plain, exact, weight.double())], strict=True):
        assert a.dtype == dtype
        assert (a - b).abs().max() < 4 * torch.finfo(dtype).eps * b.abs().max()


def test_no_matrix_of_pixels_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(danet, 'ON_A_CPU', 2**14)
    length, largest = 1024, 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.untyped_storage().nbytes())
            return out

    inputs = [torch.randn(1, c, length, requires_grad=True) for c in (4, 4, 8)]
    with Watch():
        attend(*inputs).sum().backward()
    assert largest <= 2 * 4 * 2**14 < 4 * length**2 / 20


def test_a_permutation_of_pixels_permutes_the_result() -> None:
    pam, x, order = opened(PositionAttention(8, 2)), torch.randn(1, 8, 1, 30), torch.randperm(30)
    torch.testing.assert_close(pam(x[..., order]), pam(x)[..., order])


def test_rows_sum_to_1_and_energies_are_not_scaled() -> None:
    query, key = torch.randn(2, 9, 5), torch.randn(2, 9, 7)
    weights = attention_weights(query, key)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5))
    ratio = (weights[0, 0, 0] / weights[0, 0, 1]).log()
    torch.testing.assert_close(ratio, query[0, :, 0] @ (key[0, :, 0] - key[0, :, 1]))


def test_a_bias_of_the_keys_changes_nothing_and_one_of_the_queries_does() -> None:
    pam, x = opened(PositionAttention(8, 2)), torch.randn(1, 8, 5, 6)
    before = pam(x)
    nn.init.constant_(pam.key_project.bias, 3.0)
    torch.testing.assert_close(pam(x), before)
    nn.init.constant_(pam.query_project.bias, 3.0)
    assert (pam(x) - before).abs().max() > 1e-3


# Channel attention


@pytest.mark.parametrize('sign', [-1, 1])
def test_channel_weights_are_those_of_the_plain_formula(sign: int) -> None:
    x = 0.3 * torch.randn(2, 6, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(ChannelAttention(sign).weights(x), channel_weights_slow(x, sign))


def test_channel_attention_equals_the_hosts() -> None:
    ours, host = opened(ChannelAttention()), opened(CAM())
    x = 0.2 * torch.randn(2, 16, 9, 17)
    torch.testing.assert_close(ours(x), host(x))
    assert (ChannelAttention(1).weights(x) - ours.weights(x)).abs().max() > 0.1


def test_the_least_alike_channel_weighs_most() -> None:
    a = torch.randn(1, 1, 4, 4)
    weights = ChannelAttention().weights(torch.cat([a, a, -a], dim=1))[0]
    assert weights[0, 2] > weights[0, 1]
    weights = ChannelAttention(1).weights(torch.cat([a, a, -a], dim=1))[0]
    assert weights[0, 2] < weights[0, 1]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_large_energies_stay_finite_and_exact(dtype: torch.dtype) -> None:
    x = (5 * torch.randn(1, 8, 96, 96)).to(dtype).requires_grad_()  # energies of 230 000
    cam = opened(ChannelAttention())
    with torch.autocast('cpu', dtype):
        y = cam(x)
    assert y.dtype == dtype and y.isfinite().all()
    torch.testing.assert_close(y.float(), cam(x.detach().float()), rtol=1e-2, atol=1e-2)
    y.float().sum().backward()
    assert x.grad.isfinite().all()


# The head


def test_training_gives_the_hosts_outputs_and_losses() -> None:
    ours, host = pair()
    x, results = torch.randn(2, 32, 9, 17), []
    for head in (ours.train(), host.train()):
        torch.manual_seed(1)
        logits = head([x])
        results.append((logits, head.loss_by_feat(logits, samples((33, 65)))))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for name, value in results[1][1].items():
        torch.testing.assert_close(results[0][1][name], value, rtol=1e-4, atol=1e-5)
    gammas = {'pam.gamma', 'cam.gamma'}
    assert results[0][1].keys() - results[1][1].keys() == gammas
    assert all(results[0][1][name] == 0.5 for name in gammas)


@torch.no_grad()
def test_prediction_is_the_hosts_by_one_classifier() -> None:
    ours, host = pair()
    x, metas = torch.randn(1, 32, 5, 7), [dict(img_shape=(33, 49))]
    expected = host.eval().predict([x], metas, None)
    for branch in (ours.eval().pam_conv_seg, ours.cam_conv_seg):
        branch.register_forward_hook(lambda *_: pytest.fail('a branch was classified'))
    torch.testing.assert_close(ours.predict([x], metas, None), expected, rtol=1e-4, atol=1e-5)
    assert isinstance(ours([x]), Tensor)


def test_shut_gates_hide_the_attentions_and_learn_to_open() -> None:
    head = DANetHead(**HEAD, dropout_ratio=0.0).train()
    x = torch.randn(2, 32, 6, 6)
    logits = head([x])
    plain = head.cls_seg(
        head.pam_out_conv(head.pam_in_conv(x)) + head.cam_out_conv(head.cam_in_conv(x))
    )
    torch.testing.assert_close(logits[0], plain, rtol=1e-4, atol=1e-5)
    head.loss_by_feat(logits, samples((24, 24)))['pam_cam.loss_ce'].backward()
    assert head.pam.gamma.scale.grad and head.cam.gamma.scale.grad
    for layer in (head.pam.query_project, head.pam.key_project, head.pam.value_project):
        assert not layer.weight.grad.any() and not layer.bias.grad.any()


@pytest.mark.parametrize(
    ('given', 'widths'),
    [
        (dict(in_channels=2048), (512, 64)),
        (dict(in_channels=320), (80, 10)),
        (dict(in_channels=270), (67, 8)),
        (dict(in_channels=64, channels=24), (24, 3)),
        (
            dict(in_channels=[16, 32, 48], in_index=[0, 1, 2], input_transform='resize_concat'),
            (24, 3),
        ),
    ],
)
def test_widths_follow_the_input(given: dict, widths: tuple[int, int]) -> None:
    head = MODELS.build(dict(type='DANetHead', num_classes=3, **given))
    channels, pam_channels = widths
    assert head.conv_seg.in_channels == channels
    assert head.pam.query_project.out_channels == pam_channels


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (7, 1)], ids=str)
def test_small_maps_pass(size: tuple[int, int]) -> None:
    ours, host = pair()
    x = torch.randn(2, 32, *size)
    with torch.no_grad():
        expected = host.eval()([x])[0]
        torch.testing.assert_close(ours.eval()([x]), expected, rtol=1e-4, atol=1e-5)
    head = ours.train()
    sum(v for k, v in head.loss([x], samples((9, 9)), None).items() if 'loss' in k).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_one_pixel_in_all_is_too_few_for_batch_norm_and_says_so() -> None:
    head = DANetHead(**HEAD).train()
    assert head([torch.randn(1, 32, 3, 3)])[0].isfinite().all()
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        head([torch.randn(1, 32, 1, 1)])


def test_two_classes_on_one_channel_have_three_logits_of_one_channel() -> None:
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    head = DANetHead(in_channels=32, num_classes=2, out_channels=1, threshold=0.5, loss_decode=loss)
    logits = head.train()([torch.randn(2, 32, 4, 4)])
    assert [x.shape[1] for x in logits] == [1, 1, 1]


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (dict(in_channels=16), 'pam_channels=0 .* give channels and pam_channels'),
        (dict(in_channels=64, channels=4), 'channels=4 leave pam_channels=0'),
        (dict(in_channels=64, cam_sign=0), 'cam_sign=0 must be'),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DANetHead(num_classes=3, **given)


def test_export_and_compile_see_the_same_head() -> None:
    head, x = opened(DANetHead(**HEAD)).eval(), torch.randn(2, 32, 5, 9)
    exported = torch.export.export(head, ([x],)).module()
    compiled = torch.compile(head, backend='aot_eager', fullgraph=True)
    with torch.no_grad():
        for other in (exported, compiled):
            torch.testing.assert_close(other([x]), head([x]))


# What a user sees


@torch.no_grad()
def test_a_pixels_attention_is_its_row_of_the_matrix() -> None:
    head, x = opened(DANetHead(**HEAD)).eval(), torch.randn(2, 32, 4, 6)
    maps = head.explain([x], point=(0.5, 0.75))  # column 3, row 3
    feats = head.pam_in_conv(x)
    query, key = (
        layer(feats).flatten(2) for layer in (head.pam.query_project, head.pam.key_project)
    )
    row = attention_weights(query, key)[:, 3 * 6 + 3].unflatten(1, (4, 6))
    torch.testing.assert_close(maps['position_attention'][:, 0], 24 * row)
    torch.testing.assert_close(maps['position_attention'].mean((1, 2, 3)), torch.ones(2))
    assert 'position_attention' not in head.explain([x])


@torch.no_grad()
def test_explanations_are_what_the_head_does_and_can_be_drawn() -> None:
    head, x = opened(DANetHead(**HEAD)).eval(), torch.randn(1, 32, 4, 6)
    maps = head.explain([x], point=(0.0, 0.99))
    torch.testing.assert_close(maps['prediction_fused'], head([x]))
    assert maps['channel_attention'].shape == (1, 8, 8, 1)
    torch.testing.assert_close(maps['channel_attention'].mean(1), torch.ones(1, 8, 1))
    feats = head.pam_in_conv(x)
    added, own = (head.pam(feats) - feats).norm(dim=1), feats.norm(dim=1)
    torch.testing.assert_close(maps['position_share'][:, 0], added / (added + own))
    nn.init.zeros_(head.cam.gamma.scale)
    assert not head.explain([x])['channel_share'].any()
    image = np.zeros((16, 24, 3), np.uint8)
    panels = draw_maps({k: v[0] for k, v in maps.items()}, image, [(0, 0, 0)] * 5)
    assert len(panels) == len(maps) == 7


# Recipe and conversion


def test_the_recipe_has_the_papers_dilations_and_learning_rates() -> None:
    cfg = Config.fromfile(CONFIG_DIR / 'danet' / 'r101_cityscapes.py')
    backbone = MODELS.build(dict(cfg.model.backbone, init_cfg=None, norm_cfg=dict(type='BN')))
    assert [block.conv2.dilation[0] for block in backbone.layer4] == [4, 8, 16]
    assert [block.conv2.dilation[0] for block in backbone.layer3][:2] == [1, 2]
    assert backbone.conv1.kernel_size == (7, 7)
    assert cfg.optim_wrapper.optimizer.lr == 0.003
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.head.lr_mult == 10


def test_released_deep_stems_and_classifiers_find_their_places() -> None:
    backbone = dict(type='ResNetV1c', depth=50, stem_channels=128)
    ours = set(MODELS.build(backbone).state_dict())
    stem = {name for name in ours if name.startswith('stem.')}
    released = {f'pretrained.conv1.{name[5:]}' for name in stem if not name.startswith('stem.7')}
    released |= {f'pretrained.bn1.{name[7:]}' for name in stem if name.startswith('stem.7')}
    weights = {name: torch.zeros(1) for name in released}
    assert convert('danet', weights).keys() == {f'backbone.{name}' for name in stem}
    assert convert('danet', {'module.pretrained.fc.weight': torch.zeros(1)}) == {}
    gamma = convert('danet', {'head.sa.gamma': torch.ones(1)})['decode_head.pam.gamma.scale']
    assert gamma.shape == ()
    with pytest.raises(ValueError, match='conv9'):
        convert('danet', {'head.conv9.weight': torch.zeros(1)})


def test_ade20k_follows_the_code_of_2020_alone() -> None:
    cfg = prepare.load_config(str(CONFIG_DIR / 'danet' / 'r101_ade20k.py'))
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert 'Blur' not in str(pipeline)
    resize = Compose([t for t in pipeline if t.type == 'RandomResize'])
    sides = []
    for _ in range(200):
        results = resize(dict(img=np.zeros((60, 90, 3), np.uint8), img_shape=(60, 90)))
        sides.append(max(results['img'].shape))
    assert 260 <= min(sides) < 300 and 1000 < max(sides) <= 1040
    assert abs(np.mean(sides) - 650) < 60  # uniform
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[0].end == 180
    backbone = MODELS.build(cfg.model.backbone | dict(init_cfg=None, norm_cfg=dict(type='BN')))
    assert [block.conv2.dilation for block in backbone.layer4] == [(2, 2), (4, 4), (4, 4)]
