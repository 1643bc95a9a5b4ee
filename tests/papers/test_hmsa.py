"""Properties of HMSA: its limits, its shortcuts against the plain form, its refusals."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.convert import plain_state_dict
from mmseg_ext.papers.hmsa import scaled_size, skips_full_size
from tests.oracles.hmsa import n_scale_released, two_scale_released
from tests.tiny import CONFIG_DIR, build, make_batch, small_hrnet, total_loss

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'HMSAHead': dict(attention_channels=8),
    'OCRNetHead': dict(channels=16, ocr_channels=8),
}

LEVELS = dict(in_channels=[4, 8, 16, 32], in_index=[0, 1, 2, 3])
OCR = dict(type='OCRNetHead', channels=16, ocr_channels=8, dropout_ratio=0.0, **LEVELS)
FCN = dict(type='FCNHead', channels=8, input_transform='resize_concat', **LEVELS)


def hmsa(head: dict = OCR, **kwargs: Any) -> nn.Module:
    """A small HMSA whose attention differs from pixel to pixel."""
    model = build(
        dict(
            type='HMSA',
            backbone=dict(type='HRNetExact', extra=small_hrnet()),
            decode_head=dict(type='HMSAHead', head=head, attention_channels=8, num_classes=5),
            test_cfg=dict(mode='whole'),
        )
        | kwargs
    )
    nn.init.normal_(model.decode_head.scale_attn.conv_attention.weight, std=3.0)
    return model


class Constant(nn.Module):
    """An attention of one value everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, feats: Tensor) -> Tensor:
        return torch.full_like(feats[:, :1], self.value)


@pytest.fixture(scope='module')
def model() -> nn.Module:
    return hmsa().eval()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))


def at(model: nn.Module, scales: Sequence[float], attention: float | None = None) -> nn.Module:
    """A copy that tests at ``scales``, with a constant attention if given."""
    model = copy.deepcopy(model)
    model.test_scales = hmsa_scales(scales)
    if attention is not None:
        model.decode_head.scale_attn = Constant(attention)
    return model


def hmsa_scales(scales: Sequence[float]) -> list:
    from mmseg_ext.papers.hmsa import _sorted_scales

    return _sorted_scales('test_scales', scales)


@torch.no_grad()
def own_logits(model: nn.Module, image: Tensor, scale: float, size: Sequence[int]) -> Tensor:
    """Logits of one scale alone, at its own size and then at ``size``."""
    own = model.run_scale(image, hmsa_scales([1, scale] if scale != 1 else [1])[scale < 1])
    full = F.interpolate(own.logits, own.size, mode='bilinear')
    return F.interpolate(full, size, mode='bilinear')


# Limits


@torch.no_grad()
def test_one_scale_is_the_plain_model(model: nn.Module, image: Tensor) -> None:
    plain = own_logits(model, image, 1, image.shape[2:])
    torch.testing.assert_close(at(model, [1.0])(image), plain, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize(('attention', 'winner'), [(1.0, 0.5), (0.0, 2.0)])
def test_full_attention_leaves_the_coarsest_and_none_the_finest(
    model: nn.Module, image: Tensor, attention: float, winner: float
) -> None:
    expected = own_logits(model, image, winner, image.shape[2:])
    torch.testing.assert_close(
        at(model, [0.5, 1.0, 2.0], attention)(image), expected, rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_logits_lie_between_those_of_the_scales(model: nn.Module, image: Tensor) -> None:
    size = image.shape[2:]
    own = torch.stack([own_logits(model, image, s, size) for s in (0.5, 1, 2)])
    mixed = at(model, [0.5, 1.0, 2.0], 0.3)(image)
    assert (mixed <= own.amax(0) + 1e-4).all() and (mixed >= own.amin(0) - 1e-4).all()


@torch.no_grad()
def test_order_of_scales_does_not_matter(model: nn.Module, image: Tensor) -> None:
    torch.testing.assert_close(
        at(model, [2.0, 0.5, 1.0])(image), at(model, [0.5, 1.0, 2.0])(image), rtol=0, atol=0
    )


def test_product_is_formed_before_it_is_resized(model: nn.Module) -> None:
    logits, weight, size = torch.randn(1, 5, 8, 12), torch.rand(1, 1, 8, 12), (16, 24)
    early = F.interpolate(weight * logits, size, mode='bilinear')
    late = F.interpolate(weight, size, mode='bilinear') * F.interpolate(
        logits, size, mode='bilinear'
    )
    assert not torch.allclose(late, early, atol=0.1)
    mixed = model._mix(logits, torch.zeros_like(early), weight, hmsa_scales([1, 0.5])[1])
    torch.testing.assert_close(mixed, early)


# Shortcuts


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 96), (65, 97), (62, 90), (33, 64)], ids=str)
@pytest.mark.parametrize(
    'scales', [(0.5, 1.0), (0.5, 1.0, 2.0), (0.25, 0.5, 1.0, 1.5, 2.0), (1.0, 1.75)], ids=str
)
def test_inference_equals_the_plain_form(
    model: nn.Module, size: tuple[int, int], scales: tuple[float, ...]
) -> None:
    image = torch.randn(1, 3, *size)
    plain = n_scale_released(model, image, list(scales))['pred']
    torch.testing.assert_close(at(model, scales)(image), plain, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize('factor', [4, 8, 12, 16])
def test_straight_resize_is_exact_where_it_is_taken(factor: int) -> None:
    low = torch.randn(1, 2, 5, 7, dtype=torch.float64)
    full = F.interpolate(low, scale_factor=factor, mode='bilinear')
    half = (full.shape[2] // 2, full.shape[3] // 2)
    assert skips_full_size(low, full.shape[2:], half)
    two_steps = F.interpolate(full, half, mode='bilinear')
    torch.testing.assert_close(
        F.interpolate(low, half, mode='bilinear'), two_steps, rtol=0, atol=1e-14
    )


def test_straight_resize_is_not_taken_at_odd_sizes_and_other_factors() -> None:
    low = torch.zeros(1, 1, 17, 24)
    assert not skips_full_size(low, (66, 96), (33, 48))
    assert not skips_full_size(low[:, :, :16], (64, 96), (48, 72))
    assert not skips_full_size(low[:, :, :16], (32, 48), (16, 24))


@torch.no_grad()
def test_no_map_of_the_largest_scale_is_made(
    model: nn.Module, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple] = []
    interpolate = F.interpolate

    def watch(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = interpolate(x, *args, **kwargs)
        sizes.append(tuple(out.shape[1:]))
        return out

    monkeypatch.setattr(F, 'interpolate', watch)
    at(model, [0.5, 1.0, 2.0])(image)
    assert (model.num_classes, 64, 96) in sizes
    assert (model.num_classes, 128, 192) not in sizes


def test_training_equals_the_plain_form() -> None:
    model = hmsa().train()
    plain = copy.deepcopy(model)
    images, samples = make_batch(model, size=(64, 96))
    seen = []
    head = model.decode_head.head
    by_feat = head.loss_by_feat
    head.loss_by_feat = lambda out, data: (seen.append(out), by_feat(out, data))[1]
    ours = sum(v for k, v in model.loss(images, samples).items() if 'loss' in k)
    ours.backward()
    maps = two_scale_released(plain, images)
    losses = plain.decode_head.head.loss_by_feat((maps['cls'], maps['aux']), samples)
    expected = sum(v for k, v in losses.items() if 'loss' in k)
    expected.backward()
    torch.testing.assert_close(seen[0], (maps['cls'], maps['aux']), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, expected)
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=name)
    for (name, p), q in zip(model.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=name)


def test_norms_see_the_low_scale_first_and_both_scales_once() -> None:
    model = hmsa().train()
    images, samples = make_batch(model)
    heights: list[int] = []
    model.backbone.conv1.register_forward_pre_hook(lambda _, args: heights.append(args[0].shape[2]))
    model.loss(images, samples)
    assert heights == [32, 65]
    counts = {b.item() for n, b in model.named_buffers() if n.endswith('num_batches_tracked')}
    assert counts == {2}


def test_attention_learns_from_the_low_scale_alone() -> None:
    model = hmsa().train()
    images, samples = make_batch(model)
    graphs: list[bool] = []
    model.decode_head.scale_attn.register_forward_hook(
        lambda *args: graphs.append(args[2].requires_grad)
    )
    total_loss(model, (images, samples)).backward()
    assert graphs == [True, False]
    assert model.decode_head.scale_attn.conv_attention.weight.grad.abs().sum() > 0


# Losses


def test_loss_names_of_every_head() -> None:
    expected = {
        'OCRNetHead': {'decode.loss_ce', 'decode.loss_aux', 'decode.acc_seg'},
        'FCNHead': {'decode.loss_ce', 'decode.acc_seg'},
    }
    for head in (OCR, FCN):
        model = hmsa(head, loss_single=dict(type='PixelSumBCELoss', loss_weight=0.05))
        single = {'scale_0.5.loss_bce', 'scale_1.loss_bce'}
        assert set(model.loss(*make_batch(model))) == expected[head['type']] | single


def test_auxiliary_loss_scales_with_its_weight() -> None:
    grads = []
    for weight in (0.4, 0.8):
        aux = dict(type='CrossEntropyLoss', loss_weight=weight, loss_name='loss_aux')
        model = hmsa(dict(OCR, loss_aux=aux)).train()
        model.loss(*make_batch(model))['decode.loss_aux'].backward()
        grads.append(model.decode_head.head.aux_seg.weight.grad)
    torch.testing.assert_close(2 * grads[0], grads[1])


# Pictures


@torch.no_grad()
def test_effective_weights_explain_the_mixture(model: nn.Module, image: Tensor) -> None:
    maps = at(model, [0.5, 1.0, 2.0], 0.3).explain(image)
    assert maps['scale_weight'].shape == (2, 3, 64, 96)
    torch.testing.assert_close(maps['scale_weight'].sum(1), torch.ones(2, 64, 96))
    torch.testing.assert_close(maps['scale_weight'][0, :, 0, 0], torch.tensor([0.3, 0.21, 0.49]))
    assert set(maps) == {
        'scale_weight',
        'attention_0.5',
        'attention_1',
        'prediction_0.5',
        'prediction_1',
        'prediction_2',
    }


# Modes


@torch.no_grad()
def test_slide_inference_mixes_inside_each_window(model: nn.Module) -> None:
    image = torch.randn(1, 3, 64, 150)
    slide = copy.deepcopy(model)
    slide.test_cfg = ConfigDict(mode='slide', crop_size=(64, 96), stride=(64, 54))
    result = slide.predict(image)[0].seg_logits.data
    left, right = slide.encode_decode(image[..., :96]), slide.encode_decode(image[..., 54:])
    torch.testing.assert_close(result[..., :54], left[0, ..., :54])
    torch.testing.assert_close(result[..., 96:], right[0, ..., 42:])
    torch.testing.assert_close(
        result[..., 54:96], (left[0, ..., 54:] + right[0, ..., :42]) / 2, rtol=1e-5, atol=1e-5
    )


def test_compiles_and_exports(model: nn.Module, image: Tensor) -> None:
    with torch.no_grad():
        expected = model(image)
        compiled = torch.compile(model, fullgraph=True, backend='eager')
        torch.testing.assert_close(compiled(image), expected, rtol=1e-4, atol=1e-5)
        exported = torch.export.export(model, (image,)).module()
        torch.testing.assert_close(exported(image), expected, rtol=1e-4, atol=1e-5)


def test_plain_weights_give_the_inner_head_alone(model: nn.Module, image: Tensor) -> None:
    plain = build(
        dict(
            type='EncoderDecoder',
            backbone=dict(type='HRNetExact', extra=small_hrnet()),
            decode_head=dict(OCR, num_classes=5),
            test_cfg=dict(mode='whole'),
        )
    ).eval()
    plain.load_state_dict(plain_state_dict(model.state_dict()))
    with torch.no_grad():
        logits = F.interpolate(plain(image), image.shape[2:], mode='bilinear')
        torch.testing.assert_close(logits, at(model, [1.0])(image), rtol=0, atol=0)
    back = hmsa().eval()
    missing, unexpected = back.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all('scale_attn' in name for name in missing)


def test_the_papers_network_has_the_size_that_the_readme_says() -> None:
    cfg = Config.fromfile(CONFIG_DIR / 'hmsa' / 'hrnet_ocr_cityscapes.py').model
    cfg.backbone.init_cfg = None
    millions = sum(p.numel() for p in MODELS.build(cfg).parameters()) / 1e6
    readme = (CONFIG_DIR.parent / 'README.md').read_text()
    assert f'| {millions:.2f} M |' in readme


# Refusals


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(test_scales=(0.5, 2.0)), r'test_scales=\(0.5, 2.0\) must contain 1.0'),
        (dict(train_scales=(0.5,)), r'train_scales=\(0.5,\) must contain 1.0'),
        (dict(train_scales=(1.0,)), 'leaves the attention nothing to learn'),
        (dict(test_scales=(1.0, 1.0)), 'name each scale once'),
        (dict(test_scales=(-0.5, 1.0)), 'must be positive'),
        (dict(decode_head=dict(FCN, num_classes=5)), "decode_head=dict\\(type='HMSAHead'"),
        (dict(decode_head=[dict(type='FCNHead')] * 2), 'got a list'),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_with_a_sentence(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        hmsa(**changes)


@pytest.mark.parametrize('segmentor', ['WindowedEncoderDecoder', 'GSCNN'])
def test_scale_head_outside_hmsa_is_refused(segmentor: str) -> None:
    with pytest.raises(ValueError, match="only type='HMSA' uses"):
        hmsa(type=segmentor)


def test_scale_head_in_the_hosts_segmentor_is_refused() -> None:
    model = hmsa(type='EncoderDecoder')
    batch = make_batch(model)
    for run in (model.loss, model.predict):
        with pytest.raises(ValueError, match="only type='HMSA' uses"):
            run(*batch)


@pytest.mark.parametrize('segmentor', ['WindowedEncoderDecoder', 'HMSA'])
def test_scale_head_as_auxiliary_head_is_refused(segmentor: str) -> None:
    scale_head = dict(type='HMSAHead', head=FCN, num_classes=5)
    heads = dict(decode_head=dict(FCN, num_classes=5)) if segmentor != 'HMSA' else {}
    with pytest.raises(ValueError, match="only type='HMSA' uses|only as its decode head"):
        hmsa(type=segmentor, auxiliary_head=scale_head, **heads)


def test_an_image_too_small_for_a_scale_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match='no pixel left at scale 0.5'):
        model(torch.zeros(1, 3, 1, 8))


def test_scaled_sizes_are_exact() -> None:
    for scale in hmsa_scales([0.1, 0.3, 0.7, 1.0, 1.1]):
        for n in (1, 10, 33, 2049):
            assert scaled_size((n, n), scale)[0] == math.floor(round(n * float(scale), 9))


@pytest.mark.parametrize(
    ('name', 'plain'),
    [
        ('hrnet_ocr_cityscapes', 'hrnet_ocr_cityscapes_averaged'),
        ('hrnet_ocr_mapillary', 'hrnet_ocr_mapillary_plain'),
    ],
)
def test_the_baselines_of_the_paper_differ_by_the_attention_alone(name: str, plain: str) -> None:
    full, bare = (Config.fromfile(CONFIG_DIR / f'hmsa/{n}.py').to_dict() for n in (name, plain))
    for cfg in (full, bare):
        for key in ('paper', 'bce', 'tta_pipeline'):
            cfg.pop(key, None)
    head = full['model']['decode_head']
    assert head['type'] == 'HMSAHead' and bare['model']['decode_head'] == head['head']
    for key in ('decode_head', 'type', 'train_scales', 'test_scales', 'loss_single'):
        full['model'].pop(key, None)
        bare['model'].pop(key, None)
    assert full == bare


def test_the_teacher_reads_train_val_and_crops_of_coarse_labels_for_75_epochs() -> None:
    cfg = Config.fromfile(CONFIG_DIR / 'hmsa/hrnet_ocr_cityscapes_teacher.py')
    data = cfg.train_dataloader.dataset
    folders = [leaf.data_prefix.seg_map_path for leaf in data.dataset.datasets]
    assert folders == ['gtFine/train', 'gtFine/val']
    assert data.extra.data_prefix.seg_map_path == 'gtCoarse/train_extra'
    assert 'extra_epochs' not in cfg.train_dataloader.sampler
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].end) == (75, 75)
    assert cfg.default_hooks.checkpoint.save_best is None  # val is trained on
