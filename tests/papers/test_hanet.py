"""Properties of HANet: its gates, positions that stay with their rows, released names, refusals."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS, TRANSFORMS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.convert import convert
from mmseg_ext.papers.hanet import (
    HANetHead,
    HeightAttention,
    at_height,
    positions_of,
    sinusoid_table,
)
from tests.oracles.hanet import gate_released, head_released
from tests.tiny import CONFIG_DIR, build, make_batch, small_hrnet, total_loss

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'FullMobileNetV2': dict(widen_factor=0.25, last_channels=64),
    'HANetHead': dict(channels=16, low_channels=8, attention=dict(reduction=4)),
    'HANetAuxHead': dict(channels=16),
}

CPU = torch.device('cpu')
WHOLE = torch.arange(16)
VARIANTS = [
    dict(),
    dict(num_convs=2, kernel_size=1, injection=1, learned=True, pooling='max', rows=32),
    dict(injection=0, kernel_size=5, rows=8),
]


def attention(in_channels: int = 12, out_channels: int = 10, **kwargs: Any) -> HeightAttention:
    """Gates of random weights and norms, in eval."""
    torch.manual_seed(0)
    module = HeightAttention(in_channels, out_channels, **dict(reduction=4) | kwargs)
    return randomised(module).eval()


def randomised(module: nn.Module) -> Any:
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            fans = tensor[0].numel() if tensor.ndim else 1
            nn.init.uniform_(tensor, 0.5, 1.0) if tensor.ndim < 2 else nn.init.normal_(
                tensor, std=(2 / fans) ** 0.5
            )
    return module


def hanet_head(attention: dict | None = None, **kwargs: Any) -> HANetHead:
    cfg = dict(type='HANetHead', in_channels=[6, 10, 12], in_index=[0, 1, 2], num_classes=5)
    small = dict(channels=8, low_channels=4, attention=dict(reduction=4) | (attention or {}))
    torch.manual_seed(0)
    return MODELS.build(cfg | small | kwargs).eval()


def levels(n: int = 2, h: int = 16, w: int = 20) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = [(6, h * 2, w * 2), (10, h, w), (12, h, w)]
    return [torch.randn(n, *size, generator=generator) for size in sizes]


def hanet(**kwargs: Any) -> nn.Module:
    """A small whole model whose gates differ from row to row."""
    width = dict(in_channels=[4, 8, 16, 32], in_index=[0, 1, 2, 3])
    head = dict(type='HANetHead', channels=8, low_channels=8, dilations=(1, 2, 3))
    model = build(
        dict(
            type='WindowedEncoderDecoder',
            backbone=dict(type='HRNetExact', extra=small_hrnet()),
            decode_head=head
            | width
            | dict(attention=dict(reduction=2), num_classes=5, input_transform='resize_concat'),
            test_cfg=dict(mode='whole'),
        )
        | kwargs
    )
    for gate in model.decode_head.height_attention.values():
        nn.init.normal_(gate.conv_gate.weight, std=2.0)
    return model.eval()


# Gates


@pytest.mark.parametrize('kwargs', VARIANTS, ids=str)
@pytest.mark.parametrize('height', [5, 33, 48])
@torch.no_grad()
def test_gates_equal_the_released_form(kwargs: dict, height: int) -> None:
    module = attention(**kwargs)
    x, feat = torch.randn(2, 12, height, 7), torch.randn(2, 10, 21, 9)
    positions = torch.randint(0, 129, (2, 128, 1)).expand(2, 128, 28)
    index = positions[:, :: 128 // module.rows, 0] * module.rows // 128
    gate = at_height(module(module.summarise(x), index), feat)
    torch.testing.assert_close(feat * gate, gate_released(module, x, feat, positions))


@pytest.mark.parametrize('gates', [(), (0, 1, 2, 3), (0, 1, 2, 3, 4), (1,), (2, 4)], ids=str)
@pytest.mark.parametrize('pooling', ['mean', 'max'])
@torch.no_grad()
def test_head_equals_the_released_form(gates: tuple, pooling: str) -> None:
    head = randomised(hanet_head(gates=gates, attention=dict(pooling=pooling)))
    rows = (2 * torch.arange(64) + 1) * 128 // 128
    positions = rows[None, :, None].expand(2, 64, 80)
    expected = head_released(head, levels(), positions)
    sides = head.side_inputs([{}, {}], (64, 80))
    torch.testing.assert_close(head(levels(), **sides), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_bias_opens_and_shuts_gates() -> None:
    module = attention()
    x = module.summarise(torch.randn(1, 12, 20, 9))
    for bias, value in ((1e4, 1.0), (-1e4, 0.0)):
        nn.init.constant_(module.conv_gate.bias, bias)
        assert (module(x, WHOLE[None]) == value).all()


@pytest.mark.parametrize('pooling', ['mean', 'max'])
@torch.no_grad()
def test_gates_do_not_depend_on_the_order_of_columns(pooling: str) -> None:
    module, x = attention(pooling=pooling), torch.randn(1, 12, 20, 9)
    shuffled = x[..., torch.randperm(9)]
    gates = [module(module.summarise(y), WHOLE[None]) for y in (x, shuffled)]
    torch.testing.assert_close(*gates)
    assert ((gates[0] > 0) & (gates[0] < 1)).all()


@torch.no_grad()
def test_another_position_gives_another_gate_and_no_position_is_not_the_first() -> None:
    module, x = attention(), torch.randn(1, 12, 20, 1)
    first = module(x, torch.zeros(1, 16, dtype=torch.long))
    module.injection = 0
    nothing = module(x, WHOLE[None])
    module.injection = 2
    for other in (module(x, WHOLE[None]), nothing):
        assert (other - first).abs().max() > 1e-3


def test_widths_are_the_paper_s() -> None:
    head = hanet_head(
        in_channels=[256, 1024, 2048],
        channels=256,
        low_channels=48,
        attention=dict(reduction=64),
        num_classes=19,
    )
    widths = [
        [gate.squeeze.conv.in_channels]
        + [m.out_channels for m in (gate.squeeze, gate.expand, gate.conv_gate)]
        for gate in head.height_attention.values()
    ]
    assert widths == [
        [1024, 16, 32, 2048],
        [2048, 32, 64, 1280],
        [1280, 20, 40, 256],
        [304, 5, 10, 256],
    ]
    gates = head.height_attention
    count = sum(p.numel() for p in gates.parameters()) + sum(
        b.numel() for n, b in gates.named_buffers() if n.endswith('position')
    )
    assert round(count / 1e6, 3) == 0.606


def test_convolutions_start_as_released() -> None:
    head = hanet_head(in_channels=[256, 512, 512], channels=64)
    head.init_weights()
    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d):
            std = (2 / module.weight[0].numel()) ** 0.5
            assert 0.7 < module.weight.std() / std < 1.3, name
            assert module.bias is None or not module.bias.any()


# Positions


def test_codes_of_positions_are_sines_and_cosines_plus_1() -> None:
    table = sinusoid_table(17, 16)
    torch.testing.assert_close(table[0], torch.tensor([1.0, 2.0] * 8))
    p = torch.arange(17.0)
    torch.testing.assert_close(table[:, 0], 1 + p.sin())
    torch.testing.assert_close(table[:, 2], 1 + (p / 100 ** (2 / 16)).sin())
    torch.testing.assert_close(sinusoid_table(17, 64)[:, 3], 1 + (p / 10 ** (2 / 64)).cos())


def test_rows_of_a_whole_picture_are_sampled_from_the_top() -> None:
    index = positions_of({}, (769, 9), 16, CPU) // 8
    assert index.tolist() == [*range(9), *range(8, 15)]


def test_what_lies_below_the_image_is_padding() -> None:
    known = dict(row_pos=np.arange(64, 128, dtype=np.uint8), img_shape=(64, 90))
    for meta in (known, dict(img_shape=(64, 90))):
        position = positions_of(meta, (128, 90), 16, CPU)
        assert (position[8:] == 128).all() and (position[:8] < 128).all()
    assert positions_of(known, (64, 90), 16, CPU).tolist() == list(range(64, 128, 4))


def test_a_window_has_the_positions_of_its_rows() -> None:
    whole = positions_of({}, (128, 64), 128, CPU)
    for rows in (dict(), dict(row_pos=np.arange(128, dtype=np.uint8))):
        meta = dict(rows, window=(40, 8), window_of=(128, 64))
        assert (positions_of(meta, (64, 32), 64, CPU) == whole[40:104]).all()


def test_vertical_flips_turn_positions() -> None:
    flipped = positions_of(dict(flip=True, flip_direction='vertical'), (64, 64), 16, CPU)
    sideways = positions_of(dict(flip=True, flip_direction='horizontal'), (64, 64), 64, CPU)
    assert (flipped == positions_of({}, (64, 64), 64, CPU).flip(0)[::4]).all()
    assert (sideways == positions_of({}, (64, 64), 64, CPU)).all()


def packed(*transforms: dict, size: tuple[int, int] = (60, 80)) -> tuple[Tensor, np.ndarray]:
    """Image and positions of rows behind transforms; the image shows its rows."""
    img = np.repeat(np.arange(size[0], dtype=np.uint8)[:, None], size[1], 1)
    results = dict(img=img[..., None].repeat(3, 2), seg_fields=[], img_shape=size, ori_shape=size)
    results['gt_seg_map'] = img.copy()
    results['seg_fields'].append('gt_seg_map')
    for cfg in (dict(type='AddRowPositions'), *transforms, dict(type='PackRowPositions')):
        results = TRANSFORMS.build(cfg)(results)
    return results['inputs'], results['data_samples'].row_pos


MOVES: dict[str, list[dict]] = {
    'crop': [dict(type='RandomCrop', crop_size=(30, 40))],
    'flip': [dict(type='RandomFlip', prob=1.0, direction='vertical')],
    'crop, flip': [
        dict(type='RandomCrop', crop_size=(30, 40)),
        dict(type='RandomFlip', prob=1.0, direction='diagonal'),
    ],
    'scale, crop': [dict(type='RandomScaleCrop', crop_size=(30, 40), ratio_range=(1.0, 1.0))],
}


@pytest.mark.parametrize('name', MOVES)
def test_positions_travel_with_their_rows(name: str) -> None:
    np.random.seed(1)
    image, rows = packed(*MOVES[name])
    expected = (2 * image[0, :, 0].long().numpy() + 1) * 128 // 120
    assert rows.dtype == np.uint8 and (rows == expected).all()


@pytest.mark.parametrize(
    'resize',
    [
        dict(type='Resize', scale=(160, 120)),
        dict(type='RandomResize', scale=(160, 120), ratio_range=(1.0, 1.0)),
        dict(type='ResizeToMultiple', size_divisor=40),
    ],
    ids=lambda cfg: cfg['type'],
)
def test_positions_survive_a_resize(resize: dict) -> None:
    image, rows = packed(resize)
    h = image.shape[1]
    exact = (np.arange(h) + 0.5) * 128 / h
    assert h > 60 and np.abs(rows - exact).max() < 3


def test_padding_is_no_row_of_the_picture() -> None:
    np.random.seed(0)
    image, rows = packed(dict(type='RandomScaleCrop', crop_size=(90, 100), ratio_range=(0.5, 0.5)))
    assert image.shape[1:] == (90, 100)
    inside = np.flatnonzero(rows < 128)
    assert len(inside) == 30 and (np.diff(inside) == 1).all() and (rows[: inside[0]] == 128).all()
    _, tilted = packed(dict(type='RandomRotate', prob=1.0, degree=(20, 20.001)))
    assert (tilted <= 128).all() and (tilted[20:40] < 128).all()


def test_rows_padded_in_their_first_column_alone_keep_their_positions() -> None:
    crop = dict(type='RandomScaleCrop', crop_size=(60, 100), ratio_range=(1.0, 1.0))
    assert (packed(crop)[1] < 128).all()


def test_a_transform_that_changes_only_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match='changed only the image'):
        packed(dict(type='Pad', size=(100, 100)))
    with pytest.raises(ValueError, match="dict\\(type='AddRowPositions'\\)"):
        TRANSFORMS.build(dict(type='PackRowPositions'))(dict(img=np.zeros((2, 2, 3))))


def test_noise_moves_a_row_in_22_up_or_down_in_training_alone() -> None:
    module = attention()
    assert module.injection == 2
    module.position.copy_(torch.arange(17.0)[:, None].expand_as(module.position))
    index = torch.full((5000, 16), 7)
    assert (module.code(index) == 7).all()
    torch.manual_seed(0)
    shift = module.train().code(index)[:, 0] - 7
    assert abs((shift != 0).float().mean() - 0.0455) < 0.003
    assert abs(shift.mean()) < 2e-3 and shift.abs().max() <= 2
    assert module.code(torch.full((5000, 16), 16)).max() == 16


# Whole models


@torch.no_grad()
def test_windows_of_full_height_see_the_whole_and_lower_ones_the_lower_part() -> None:
    model = hanet()
    head, seen = model.decode_head, []
    head.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs['row_index'].clone()), with_kwargs=True
    )
    images, samples = make_batch(model, size=(128, 96), count=1)
    model.predict(images, samples)
    whole = seen.pop()
    slide = dict(mode='slide', crop_size=(64, 64), stride=(64, 32), full_height=True)
    model.test_cfg = ConfigDict(slide)
    model.predict(images, samples)
    assert len(seen) == 1 and (seen.pop() == whole).all()  # 128 high, so 128 wide
    model.test_cfg = ConfigDict(slide, full_height=False, windows_per_batch=1)
    model.predict(images, samples)
    assert [index[0].tolist() for index in seen] == [
        [i // 2 + 8 * lower for i in range(16)] for lower in (0, 0, 1, 1)
    ]


@torch.no_grad()
def test_the_rows_of_an_image_do_not_depend_on_the_padding_of_its_batch() -> None:
    head = hanet_head()
    metas = [dict(img_shape=(32, 64)), dict(img_shape=(64, 64))]
    index = head.side_inputs(metas, (64, 64))['row_index']
    assert index.tolist() == [[*range(0, 16, 2), *[16] * 8], list(range(16))]


def test_missing_positions_are_said_in_training() -> None:
    model = hanet().train()
    images, samples = make_batch(model, size=(64, 64))
    with pytest.warns(UserWarning, match='put AddRowPositions before the crop'):
        model.loss(images, samples)
    for sample in samples:
        sample.set_metainfo(dict(row_pos=np.arange(64, dtype=np.uint8)))
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='HANetHead')
        model.loss(images, samples)
        plain = hanet_head(gates=()).train()
        assert plain.side_inputs([{}], (64, 64)) == {}


def test_positions_change_the_loss() -> None:
    model = hanet()
    images, samples = make_batch(model, size=(64, 64))
    losses = []
    for start in (0, 60):
        for sample in samples:
            sample.set_metainfo(dict(row_pos=np.arange(start, start + 64, dtype=np.uint8)))
        losses.append(total_loss(model, (images, samples)).item())
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_gates_explain_themselves_as_tables() -> None:
    model = hanet()
    images, samples = make_batch(model, size=(64, 96))
    maps = model.explain(images, samples)
    shapes = {name: tuple(x.shape) for name, x in maps.items()}
    assert shapes == {
        'gate_0': (2, 32, 16, 1),
        'gate_1': (2, 40, 16, 1),
        'gate_2': (2, 8, 16, 1),
        'gate_3': (2, 8, 16, 1),
        'class_profile': (2, 5, 16, 1),
    }
    torch.testing.assert_close(maps['class_profile'].sum(1), torch.ones(2, 16, 1))


@torch.no_grad()
@pytest.mark.parametrize('size', [(1, 64), (64, 1), (1, 1), (33, 65)], ids=str)
def test_small_and_odd_inputs_predict(size: tuple[int, int]) -> None:
    model = hanet()
    images, samples = make_batch(model, size=size)
    assert all(r.seg_logits.data.isfinite().all() for r in model.predict(images, samples))


def test_one_image_trains_on_norms_that_are_fixed_and_is_refused_by_those_that_are_not() -> None:
    model = hanet().train()
    batch = make_batch(model, size=(64, 64), count=1)
    with pytest.raises(ValueError, match='two or more images'):
        model.loss(*batch)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert total_loss(model, batch).isfinite()


@torch.no_grad()
def test_forward_exports_and_runs_in_bf16_and_channels_last() -> None:
    head, x = hanet_head(), levels()
    index = head.side_inputs([{}, {}], (64, 80))['row_index']
    expected = head(x, index)
    exported = torch.export.export(head, (x, index)).module()
    torch.testing.assert_close(exported(x, index), expected)
    last = [level.contiguous(memory_format=torch.channels_last) for level in x]
    torch.testing.assert_close(head(last, index), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast('cpu', torch.bfloat16):
        logits, gates = head.run(x, index)
    assert logits.dtype == torch.bfloat16 and gates[0].dtype == torch.float32
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)


# The auxiliary head


def test_labels_are_shrunk_to_the_auxiliary_logits_and_ignored_pixels_do_not_count() -> None:
    head = MODELS.build(dict(type='HANetAuxHead', in_channels=4, num_classes=5))
    label = torch.randint(0, 5, (2, 1, 65, 97))
    label[:, :, 20:] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in label]
    logits = torch.randn(2, 5, 9, 13, requires_grad=True)
    rows, columns = [i * 65 // 9 for i in range(9)], [i * 97 // 13 for i in range(13)]
    terms = [
        logits[n, :, i, j].logsumexp(0) - logits[n, label[n, 0, y, x], i, j]
        for n in range(2)
        for i, y in enumerate(rows)
        for j, x in enumerate(columns)
        if y < 20
    ]
    loss = head.loss_by_feat(logits, samples)['loss_ce']
    torch.testing.assert_close(loss, 0.4 * torch.stack(terms).mean())
    label.fill_(255)
    nothing = head.loss_by_feat(logits, samples)['loss_ce']
    nothing.backward()
    assert nothing == 0 and not logits.grad.any()


# Released names


def released_names(model: nn.Module, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """A released checkpoint of the model's shapes, with a bias before the auxiliary norm."""
    back = {
        'decode_head.aspp': 'aspp.features',
        'decode_head.image_pool': 'aspp.img_conv',
        'decode_head.bottleneck': 'bot_aspp',
        'decode_head.low': 'bot_fine',
        'decode_head.decoder.0.conv': 'final1.0',
        'decode_head.decoder.0.bn': 'final1.1',
        'decode_head.decoder.1.conv': 'final1.3',
        'decode_head.decoder.1.bn': 'final1.4',
        'decode_head.conv_seg': 'final2.0',
        'auxiliary_head.convs.0': 'dsn',
        'auxiliary_head.conv_seg': 'dsn.4',
        'decode_head.height_attention.': 'hanet',
        'conv_gate': 'attention_third.0',
        'squeeze': 'attention_first',
        '.expand.': '.attention_second.',
        'position': 'pos_emb1d_2nd.pos_layer.weight',
    }
    weights = {}
    for name, x in model.state_dict().items():
        if name.startswith('backbone.'):
            name = rename(name.removeprefix('backbone.'))
        else:
            for new, old in back.items():
                name = name.replace(new, old)
            name = name.replace('.conv.', '.0.').replace('.bn.', '.1.')
        if name.startswith('hanet') and x.ndim == 4:
            x = x[..., 0]
        weights[f'module.{name}'] = x
    weights['module.dsn.0.bias'] = torch.full((weights['module.dsn.0.weight'].shape[0],), 0.25)
    return weights


def resnet_name(name: str) -> str:
    return (
        name.replace('stem.', 'layer0.')
        .replace('conv1.', 'layer0.0.', name[:6] == 'conv1.')
        .replace('bn1.', 'layer0.1.', name[:4] == 'bn1.')
    )


def mobilenet_name(name: str) -> str:
    """Ours to torchvision's features 0 to 17, cut into the parts of the released network."""
    if name.startswith('conv1.'):
        return name.replace('conv1.conv.', 'layer0.0.0.').replace('conv1.bn.', 'layer0.0.1.')
    if name.startswith('conv2.'):
        return name.replace('conv2.conv.', 'layer4.0.0.').replace('conv2.bn.', 'layer4.0.1.')
    stage, block, _, conv, kind, rest = name.split('.')
    feature = [1, 2, 4, 7, 11, 14, 17][int(stage[-1]) - 1] + int(block)
    part = next(i for i, first in ((3, 11), (2, 7), (1, 2), (0, 0)) if feature >= first)
    place = feature - [0, 2, 7, 11][part]
    last = '1' if feature == 1 else '2'
    own = dict(conv=f'{conv}.0', bn=f'{conv}.1')
    if conv == last:
        own = dict(conv=conv, bn=str(int(conv) + 1))
    return f'layer{part}.{place}.conv.{own[kind]}.{rest}'


@pytest.mark.parametrize(
    ('config', 'rename'),
    [
        ('r101_deeplabv3plus_cityscapes', resnet_name),
        ('r50_deeplabv3plus_cityscapes', resnet_name),
        ('mobilenetv2_deeplabv3plus_cityscapes', mobilenet_name),
    ],
)
def test_every_released_name_is_one_of_ours(config: str, rename: Callable[[str], str]) -> None:
    cfg = Config.fromfile(CONFIG_DIR / 'hanet' / f'{config}.py').model
    cfg.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(cfg)
    released = {
        k: torch.empty_like(x, device='cpu') for k, x in released_names(model, rename).items()
    }
    bias = released['module.dsn.0.bias'].fill_(0.25)
    mean = released['module.dsn.1.running_mean'].fill_(1.0)
    ours = convert('hanet', released)
    model.load_state_dict(ours, assign=True)  # strict
    assert (ours['auxiliary_head.convs.0.bn.running_mean'] == mean - bias).all()


def test_gates_default_to_the_papers() -> None:
    cfg = dict(type='HANetHead', in_channels=[6, 10, 12], in_index=[0, 1, 2], num_classes=5)
    for attention in ({}, dict(attention=None), dict(attention=dict(rows=16))):
        gate = MODELS.build(cfg | attention).height_attention['0']
        assert gate.rows == 16 and gate.dropout.p == 0.1 and gate.injection == 2


def test_a_checkpoint_of_another_reduction_does_not_load() -> None:
    with pytest.raises(RuntimeError, match='size mismatch'):
        hanet_head(dict(reduction=3)).load_state_dict(hanet_head().state_dict())


def test_mobilenets_last_convolution_starts_from_weights_for_imagenet(tmp_path: Path) -> None:
    path = CONFIG_DIR / 'hanet' / 'mobilenetv2_deeplabv3plus_cityscapes.py'
    cfg = Config.fromfile(path).model.backbone | dict(norm_cfg=dict(type='BN'))
    backbone = MODELS.build(cfg | dict(init_cfg=None))
    file = str(tmp_path / 'imagenet.pth')
    weights = {n: torch.full_like(x, 0.5) for n, x in backbone.state_dict().items()}
    torch.save(weights | {'head.fc.weight': torch.ones(1)}, file)
    backbone = MODELS.build(cfg | dict(init_cfg=dict(type='Pretrained', checkpoint=file)))
    backbone.init_weights()
    assert backbone.conv2.conv.weight.shape == (1280, 320, 1, 1)
    assert all((x == 0.5).all() for x in backbone.state_dict().values() if x.is_floating_point())
    with torch.no_grad():
        levels = backbone(torch.zeros(1, 3, 64, 96))
    assert [x.shape[1:] for x in levels] == [(32, 8, 12), (320, 4, 6), (1280, 4, 6)]
    host = MODELS.build(cfg | dict(type='MobileNetV2', init_cfg=None, out_indices=(2, 6)))
    names = set(backbone.state_dict()) - set(host.state_dict())
    assert names and all(name.startswith('conv2.') for name in names)


def test_released_weights_for_imagenet_become_a_backbone() -> None:
    stem = {f'{name}.weight': torch.zeros(1) for name in ('conv1', 'bn1', 'conv2', 'bn2', 'fc')}
    assert list(convert('hanet', stem)) == [f'backbone.stem.{i}.weight' for i in (0, 1, 3, 4)]


# Refusals


def test_arguments_that_cannot_work_are_refused() -> None:
    for kwargs, sentence in [
        (dict(in_channels=2048, in_index=3), 'leave both to model.levels'),
        (dict(in_channels=[2048], in_index=[3]), 'two or more levels'),
        (dict(gates=(5,)), 'gates=5 is not one of 0, 1, 2, 3, 4'),
        (dict(attention=dict(rows=12)), 'rows=12 is not one of 1, 2, 4'),
        (dict(attention=dict(reduction=0)), 'reduction=0 would leave no channel'),
        (dict(attention=dict(pooling='median')), "pooling='median' is not one of mean, max"),
        (dict(attention=dict(injection=3)), 'injection=3'),
        (dict(attention=dict(num_convs=4)), 'num_convs=4'),
        (
            dict(attention=dict(row=8)),
            'does not know attention.row: it reads rows, reduction',
        ),
        (dict(attention=dict(norm_cfg=None)), 'does not know attention.norm_cfg'),
    ]:
        with pytest.raises(ValueError, match=sentence):
            hanet_head(**kwargs)
    assert hanet_head(dict(reduction=1000)).height_attention['0'].squeeze.out_channels == 1
