"""ESPNetv2: dilations, levels, sizes, the released network's parameters and names."""

import copy
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.baselines.espnetv2 import EESP, WIDTHS, PyramidPool
from mmseg_ext.convert import convert
from tests.tiny import CONFIG_DIR, build

BN = dict(type='BN')


def network(**changes: Any) -> nn.Module:
    head = dict(type='ESPNetV2Head', in_channels=list(WIDTHS[0.5]), num_classes=5) | changes
    return build(
        dict(
            type='WindowedEncoderDecoder',
            backbone=dict(type='ESPNetV2', widen_factor=0.5),
            decode_head=head,
            test_cfg=dict(mode='whole'),
        )
    ).eval()


def released() -> nn.Module:
    cfg = Config.fromfile(CONFIG_DIR / 'dsrl' / 'espnetv2_cityscapes.py').model
    return revert_sync_batchnorm(MODELS.build(cfg | dict(sisr=None)))


@pytest.mark.parametrize(
    ('limit', 'dilations'),
    [
        (13, [1, 2, 3, 4]),
        (11, [1, 2, 3, 4]),
        (9, [1, 2, 3, 4]),
        (7, [1, 1, 2, 3]),
        (5, [1, 1, 1, 2]),
    ],
)
def test_fields_beyond_the_limit_fall_back_to_three_pixels(limit: int, dilations: list) -> None:
    block = EESP(16, 16, receptive_limit=limit, norm_cfg=BN)
    assert [branch.dilation[0] for branch in block.branches] == dilations


def test_each_branch_holds_the_ones_before_it() -> None:
    block = EESP(16, 16, receptive_limit=7, norm_cfg=BN).eval()
    seen: list[Tensor] = []
    block.fuse.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(1, 16, 9, 11)
    block(x)
    reduced = block.reduce(x)
    parts = seen[0].chunk(4, dim=1)
    for i, part in enumerate(parts):
        total = sum(branch(reduced) for branch in block.branches[: i + 1])
        torch.testing.assert_close(part, total)


def test_branches_must_divide_the_channels() -> None:
    for widths in ((6, 16), (16, 8)):
        with pytest.raises(ValueError, match=f'branches=4 must divide in_channels={widths[0]}'):
            EESP(*widths, receptive_limit=7, norm_cfg=BN)


@torch.no_grad()
def test_channels_are_shuffled_between_the_scales() -> None:
    pool = PyramidPool(4, 3, norm_cfg=BN).eval()
    given = torch.arange(15.0)[None, :, None, None]
    assert pool.shuffle(given).flatten()[:6].tolist() == [0, 3, 6, 9, 12, 1]


@torch.no_grad()
@pytest.mark.parametrize('size', [(16, 48), (1, 1), (2, 70)], ids=str)
def test_resized_maps_of_the_pyramid_have_five_pixels_at_least(size: tuple[int, int]) -> None:
    pool = PyramidPool(4, 3, norm_cfg=BN).eval()
    sizes: list[tuple] = []
    for stage in pool.stages:
        stage.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape[2:])))
    assert pool(torch.randn(1, 4, *size)).shape == (1, 3, *size)
    resized = [s for s, scale in zip(sizes, pool.scales, strict=True) if scale != 1]
    assert min(min(s) for s in resized) >= 5
    assert sizes[2] == size


@torch.no_grad()
@pytest.mark.parametrize('factor', WIDTHS)
def test_levels_have_the_widths_of_the_factor_and_halve(factor: float) -> None:
    backbone = MODELS.build(dict(type='ESPNetV2', widen_factor=factor)).eval()
    for (h, w), sizes in (
        ((32, 48), [(16, 24), (8, 12), (4, 6), (2, 3)]),
        ((33, 1), [(17, 1), (9, 1), (5, 1), (3, 1)]),
    ):
        levels = backbone(torch.randn(1, 3, h, w))
        assert [tuple(x.shape[1:]) for x in levels] == [
            (c, *size) for c, size in zip(WIDTHS[factor], sizes, strict=True)
        ]


@torch.no_grad()
def test_every_level_sees_the_image_beside_the_features() -> None:
    backbone = MODELS.build(dict(type='ESPNetV2', widen_factor=0.5)).eval()
    nn.init.zeros_(backbone.level1.conv.weight)
    levels = backbone(torch.randn(1, 3, 32, 48)), backbone(torch.randn(1, 3, 32, 48))
    differ = [not torch.allclose(a, b) for a, b in zip(*levels, strict=True)]
    assert differ == [False, True, True, True]


@torch.no_grad()
@pytest.mark.parametrize('size', [(32, 48), (33, 47), (5, 9), (1, 1)], ids=str)
def test_images_of_any_size_are_predicted(size: tuple[int, int]) -> None:
    model = network()
    image = torch.randn(2, 3, *size)
    half = tuple((n + 1) // 2 for n in size)
    assert model(image).shape == (2, 5, *half)
    logits = model.predict(image)[0].seg_logits.data
    expected = F.interpolate(model(image), size, mode='bilinear', align_corners=True)[0]
    torch.testing.assert_close(logits, expected)


def test_spare_classes_are_trained_and_never_predicted() -> None:
    model = network(spare_classes=2)
    nn.init.constant_(model.decode_head.conv_seg.bias, 0.0)
    with torch.no_grad():
        model.decode_head.conv_seg.bias[5:] = 100.0
    image = torch.randn(1, 3, 32, 48)
    result = model.predict(image)[0]
    assert result.seg_logits.data.shape == (5, 32, 48)
    assert result.pred_sem_seg.data.max() < 5
    label = torch.zeros(1, 32, 48, dtype=torch.long)
    sample = SegDataSample(gt_sem_seg=PixelData(data=label))
    loss = model.train().loss(image.expand(2, -1, -1, -1), [sample, copy.deepcopy(sample)])
    assert loss['decode.loss_ce'] > 50  # the spare classes compete
    loss['decode.loss_ce'].backward()
    assert model.decode_head.conv_seg.bias.grad[5:].min() > 0


def test_spare_classes_are_dropped_after_the_upsampler() -> None:
    model = released().eval()
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 64, 96))
        *_, full = model.run_head(model.extract_feat(torch.randn(1, 3, 64, 96)), (64, 96), {})
    assert model.sssr.stages[0][0].weight.shape == (20, 20, 3, 3)
    assert full.shape == (1, 20, 64, 96) and logits.shape == (1, 19, 64, 96)


def test_the_released_network_has_its_parameters() -> None:
    model = released()
    unused = 96 + 128 + 256  # slopes that the released down-samplers hold and do not use
    assert sum(p.numel() for p in model.parameters()) == 796_562 - unused
    assert sum(p.numel() for p in model.sssr.parameters()) == 7_320


NAMES = {
    'base_net.level1.act.weight': 'backbone.level1.activate.weight',
    'base_net.level4.0.proj_1x1.conv.weight': 'backbone.level4.0.reduce.conv.weight',
    'base_net.level2_0.inp_reinf.1.bn.bias': 'backbone.level2_0.reinforce.1.bn.bias',
    'bu_dec_l4.merge_layer.3.bias': 'decode_head.conv_seg.bias',
    'bu_dec_l6.0.weight': 'sssr.stages.1.0.weight',
}


def test_released_names_become_ours() -> None:
    state = {name: torch.ones(1) for name in NAMES}
    unused = {'base_net.level3_0.eesp.module_act.weight': torch.ones(1)}
    assert set(convert('dsrl', state | unused)) == set(NAMES.values())
    assert set(NAMES.values()) <= set(released().state_dict())


def test_the_encoder_of_a_classifier_of_imagenet_becomes_the_backbone() -> None:
    ours = {n: t for n, t in released().state_dict().items() if n.startswith('backbone.')}
    released_parts = (
        ('reduce.', 'proj_1x1.'),
        ('branches.', 'spp_dw.'),
        ('fuse.0.', 'br_after_cat.bn.'),
        ('fuse.1.', 'br_after_cat.act.'),
        ('expand.', 'conv_1x1_exp.'),
        ('reinforce.', 'inp_reinf.'),
        ('activate.', 'act.'),
    )
    state = {}
    for name, tensor in ours.items():
        name = re.sub(r'(branches\.\d)\.', r'\1.conv.', name.removeprefix('backbone.'))
        name = re.sub(r'(level\d\.\d|eesp)\.act\.', r'\1.module_act.', name)
        for part, released_part in released_parts:
            name = name.replace(part, released_part)
        state[name] = tensor
    classifier = ('level5_0.eesp.spp_dw.0.conv.weight', 'level5.4.act.weight', 'classifier.weight')
    others = (*classifier, 'level4_0.eesp.module_act.weight')
    weights = convert('dsrl', state | {f'module.{name}': torch.ones(1) for name in others})
    torch.testing.assert_close(weights, ours, rtol=0, atol=0)


def test_parts_that_the_released_model_ignores_are_named() -> None:
    state = {name: torch.ones(1) for name in NAMES} | {'edge_head.weight': torch.ones(1)}
    with pytest.warns(UserWarning, match='1 of 6 tensors .* omitted: edge_head.weight'):
        assert set(convert('dsrl', state)) == set(NAMES.values())
    with pytest.raises(ValueError, match=re.escape('names belong to another model: base_net.conv')):
        convert('dsrl', state | {'base_net.conv': torch.ones(1)})


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(in_channels=512), 'leave both to model.levels'),
        (dict(in_channels=[8, 8]), r'got in_channels=\[8, 8\], num_classes=5'),
        (dict(num_classes=1), 'at least 2 classes'),
    ],
    ids=str,
)
def test_wrong_heads_are_refused_with_a_sentence(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        network(**changes)


def test_unknown_widths_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r'widen_factor=3 must be one of \[0.5, 1.0, 1.25'):
        MODELS.build(dict(type='ESPNetV2', widen_factor=3))
