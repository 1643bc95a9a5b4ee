"""Properties of DSRL: its affinity, upsamplers, reconstruction, and what it does to a model."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_ext.config import prepare
from mmseg_ext.convert import convert
from mmseg_ext.errors import UserError
from mmseg_ext.papers.dsrl import FeatureAffinityLoss, ReconstructionLoss, affinity
from mmseg_ext.papers.dsrl.segmentor import halved, peak_signal_to_noise, unpadded
from tests.oracles.dsrl import affinity_one_by_one, affinity_released
from tests.test_swap import BATCH_NORM, HEADS, shrunk
from tests.tiny import CONFIG_DIR, build, make_batch, small_hrnet, tiny, total_loss

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'DenseDeepLabHead': dict(channels=16),
    'ESPCNDecoder': dict(channels=(16, 8)),
    'ESPNetV2': dict(widen_factor=0.5),
}

LEVELS = dict(in_channels=[4, 8, 16, 32], in_index=[0, 1, 2, 3])
LEVEL = dict(in_channels=32, in_index=3)
FCN = dict(type='FCNHead', channels=8, num_convs=1, input_transform='resize_concat', **LEVELS)
FCN |= dict(num_classes=5, dropout_ratio=0.0, norm_cfg=dict(type='BN'))
OCR = dict(type='OCRNetHead', channels=16, ocr_channels=8, num_classes=5, **LEVELS)


def dsrl(head: Any = FCN, **kwargs: Any) -> nn.Module:
    return build(
        dict(
            type='DSRL',
            backbone=dict(type='HRNetExact', extra=small_hrnet()),
            decode_head=head,
            sisr=dict(channels=(8, 6)),
            test_cfg=dict(mode='whole'),
        )
        | kwargs
    )


@pytest.fixture(scope='module')
def model() -> nn.Module:
    return dsrl().eval()


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pair() -> tuple[Tensor, Tensor]:
    return noise(2, 4, 5, 7), noise(2, 3, 5, 7, seed=1)


def gap(a: Tensor, b: Tensor, **options: Any) -> Tensor:
    return FeatureAffinityLoss(stride=1, **options)(a, b, a.shape[2:])


@pytest.fixture
def narrow_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, 'strip_rows', lambda x: 4)  # the last of 35 has 3


# Affinity


@pytest.mark.parametrize('q', [1, 2])
def test_affinity_is_the_papers_formula(q: int) -> None:
    a, b = (x[:1] for x in pair())
    expected = affinity_one_by_one(a[0], b[0], q)
    assert gap(a, b, q=q).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize('q', [1, 2])
@pytest.mark.parametrize('p', [1, 2, 3])
def test_strips_and_gram_matrices_equal_all_pairs(p: int, q: int, narrow_strips: None) -> None:
    maps = [x.requires_grad_() for x in pair()]
    ours, expected = gap(*maps, p=p, q=q), affinity_released(*maps, p=p, q=q)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=0)
    for own, other in zip(*(torch.autograd.grad(x, maps) for x in (ours, expected)), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('options', [{}, dict(q=2), dict(p=None)], ids=str)
def test_gradients_are_the_derivatives(options: dict, narrow_strips: None) -> None:
    maps = [x[:, :, :2, :3].clone().requires_grad_() for x in pair()]
    assert torch.autograd.gradcheck(lambda a, b: gap(a, b, **options), maps)


def test_one_map_may_learn_alone() -> None:
    a, b = pair()
    both = gap(a.requires_grad_(), b.requires_grad_())
    expected = torch.autograd.grad(both, a)
    torch.testing.assert_close(torch.autograd.grad(gap(a, b.detach()), a), expected)
    mine = gap(a, b, detach_sr=True)
    torch.testing.assert_close(torch.autograd.grad(mine, a, retain_graph=True), expected)
    with pytest.raises(RuntimeError, match='not have been used in the graph'):
        torch.autograd.grad(mine, b)


def test_no_tensor_holds_all_pairs() -> None:
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, fn: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = fn(*args, **(kwargs or {}))
            largest = max(largest, out.numel() if isinstance(out, Tensor) else 0)
            return out

    maps = [noise(1, 3, 64, 64, dtype=torch.float32, seed=i).requires_grad_() for i in range(2)]
    with Watch():
        gap(*maps).backward()
    assert 0 < largest <= 64**4 / 16


def test_rotating_channels_and_scaling_pixels_change_nothing_but_in_the_third_party_form() -> None:
    a, b = pair()
    turn = torch.linalg.qr(noise(4, 4, seed=3))[0]
    turned = torch.einsum('cd,ndhw->nchw', turn, a)
    scaled = turned * noise(2, 1, 5, 7, seed=4).exp()
    torch.testing.assert_close(gap(turned, b, p=None), gap(a, b, p=None))
    torch.testing.assert_close(gap(scaled, b), gap(a, b))
    assert gap(a, scaled) < 1e-12
    assert not torch.isclose(gap(scaled, b, p=None), gap(a, b, p=None), rtol=0.01)


def test_affinity_is_symmetric_and_does_not_know_places() -> None:
    a, b = pair()
    torch.testing.assert_close(gap(b, a), gap(a, b))
    places = torch.randperm(35)
    mixed = [x.flatten(2)[..., places].unflatten(2, (5, 7)) for x in (a, b)]
    torch.testing.assert_close(gap(*mixed), gap(a, b))


def test_affinity_is_bounded() -> None:
    a = noise(1, 3, 1, 1).expand(1, 3, 4, 4)
    signs = torch.ones(1, 1, 4, 4, dtype=a.dtype)
    signs[..., :2] = -1
    assert gap(a, a * signs) == pytest.approx(1.0)  # half of the pairs differ by 2
    for one, other in (pair(), [x.relu() for x in pair()]):
        assert 0 < gap(one, other) < 2
    assert gap(*[x.relu() for x in pair()]) < 1


def test_a_batch_counts_as_the_mean_of_its_images() -> None:
    a, b = pair()
    twice = [torch.cat([x[:1], x[:1]]) for x in (a, b)]
    for options in ({}, dict(q=2), dict(p=None)):
        torch.testing.assert_close(gap(*twice, **options), gap(a[:1], b[:1], **options))


@pytest.mark.parametrize('q', [1, 2])
def test_pixels_without_features_get_no_gradient(q: int) -> None:
    a, b = (x.float() for x in pair())
    a[:, :, 2, 3] = 0
    b[:, :, 4] = 0
    maps = [x.requires_grad_() for x in (a, b)]
    loss = gap(*maps, q=q)
    grads = torch.autograd.grad(loss, maps)
    assert loss.isfinite() and all(g.isfinite().all() and g.abs().max() < 1 for g in grads)
    assert not grads[0][:, :, 2, 3].any() and not grads[1][:, :, 4].any()
    assert grads[0][:, :, 2, 2].any()
    assert gap(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), q=q) == 0


def test_half_precision_is_compared_in_float32() -> None:
    maps = [1e-4 * x.half() for x in pair()]
    with torch.autocast('cpu', torch.bfloat16):
        loss = gap(*maps)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, affinity_released(*(x.float() for x in maps)))


def test_fine_maps_are_averaged_and_the_coarser_of_both_decides() -> None:
    fine, coarse = noise(1, 3, 16, 24), noise(1, 4, 4, 6, seed=1)
    size = (32, 48)
    expected = gap(F.avg_pool2d(fine, 4), coarse)
    for stride in (1, 4, 8):
        loss = FeatureAffinityLoss(stride=stride)
        torch.testing.assert_close(loss(fine, coarse, size), expected)
    a, b = (
        FeatureAffinityLoss(stride=16)(fine, coarse, size),
        gap(F.avg_pool2d(fine, 8), F.avg_pool2d(coarse, 2)),
    )
    torch.testing.assert_close(a, b)


# Upsamplers


def test_pixel_shuffle_starts_as_bilinear_doubling() -> None:
    logits = noise(2, 3, 5, 7, dtype=torch.float32)
    up = MODELS.build(dict(type='PixelShuffleUpsampler', num_classes=3))
    expected = logits
    for _ in range(2):
        expected = F.interpolate(expected, scale_factor=2, mode='bilinear')
    torch.testing.assert_close(up(logits, (9, 9)), expected)


def test_transposed_convolutions_double_and_refuse_many_classes() -> None:
    up = MODELS.build(dict(type='DeconvUpsampler', num_classes=3, stages=3)).eval()
    assert up(torch.zeros(1, 3, 4, 6), (16, 24)).shape == (1, 3, 32, 48)
    with pytest.raises(ValueError, match="150 classes .* take sssr=dict.type='BilinearUpsampler'"):
        dsrl(FCN | dict(num_classes=150), sssr=dict(type='DeconvUpsampler'))
    assert dsrl(FCN | dict(num_classes=33), sssr=dict(type='DeconvUpsampler', max_classes=33))


# Reconstruction


def test_a_decoder_of_two_levels_says_so() -> None:
    with pytest.raises(
        UserError, match=r'a fine and a coarse level, got in_channels=\[8, 16, 32\]'
    ):
        MODELS.build(dict(type='DeconvDecoder', in_channels=[8, 16, 32], in_index=[0, 1, 2]))


@pytest.mark.parametrize('size', [(64, 96), (61, 90), (1, 30), (7, 1)], ids=str)
@pytest.mark.parametrize('kind', ['ESPCNDecoder', 'DeconvDecoder'])
def test_the_reconstruction_has_the_size_of_the_image(kind: str, size: tuple[int, int]) -> None:
    levels = [torch.randn(1, 4, 8, 12), torch.randn(1, 6, 4, 6)]
    decoder = MODELS.build(dict(type=kind, in_channels=[4, 6], in_index=[0, 1])).eval()
    image, feats = decoder(levels, size)
    assert image.shape == (1, 3, *size) and feats.shape[1] == decoder.feat_channels


def test_the_target_is_the_image_that_went_in(model: nn.Module) -> None:
    images, samples = make_batch(model, size=(64, 96))
    losses = model.loss(images, samples)  # in eval: no running statistics
    image, _ = model.sisr(model.extract_feat(images), (64, 96))
    expected = 0.1 * (image - images).square().mean()
    torch.testing.assert_close(losses['sisr.loss_mse'], expected)


def padded(images: Tensor, label: Tensor, frame: tuple[int, ...], value: float) -> tuple:
    """Batch with a frame (left, right, top, bottom) of one colour and no label."""
    label = F.pad(label, frame, value=255)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in label]
    return F.pad(images, frame, value=value), samples


@pytest.mark.parametrize('value', [0.0, -2.1])
@pytest.mark.parametrize('told', [True, False])
def test_padding_is_no_target(told: bool, value: float) -> None:
    images, label = noise(2, 3, 20, 30), torch.randint(0, 5, (2, 1, 20, 30))
    label[0] = 255  # without label but with a picture
    whole, samples = padded(images, label, (3, 0, 2, 4), value)
    for sample in samples if told else ():
        sample.set_metainfo(dict(padding_size=(3, 0, 2, 4)))
    valid = unpadded(whole, samples)
    expected = torch.zeros(2, 1, 26, 33, dtype=torch.bool)
    expected[:, :, 2:22, 3:] = True
    assert torch.equal(valid, expected)
    loss = ReconstructionLoss(loss_weight=1.0)
    inner = noise(2, 3, 20, 30, seed=5)
    ours = loss(F.pad(inner, (3, 0, 2, 4), value=9.0), whole, valid)
    torch.testing.assert_close(ours, (inner.float() - images.float()).square().mean())


def test_padding_of_a_crop_and_of_a_batch_lie_around_each_other() -> None:
    images, label = noise(1, 3, 20, 30), torch.zeros(1, 1, 20, 30, dtype=torch.long)
    images, samples = padded(images, label, (3, 5, 0, 4), -1.9)
    images, samples = padded(images, samples[0].gt_sem_seg.data[None], (0, 6, 0, 2), 0.0)
    samples[0].set_metainfo(dict(padding_size=(0, 6, 0, 2)))
    valid = unpadded(images, samples)
    assert valid[..., :20, 3:33].all() and valid.sum() == 600


def test_flat_parts_with_a_label_and_ignored_parts_of_the_picture_count() -> None:
    images, label = noise(1, 3, 20, 30), torch.zeros(1, 1, 20, 30, dtype=torch.long)
    images[..., :5] = 0
    label[..., 20:] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[0]))]
    assert unpadded(images, samples).all()


def test_without_labels_the_image_is_still_learned(model: nn.Module) -> None:
    trained = copy.deepcopy(model).train()
    losses = trained.loss(*make_batch(model, ignored=1.0))
    assert losses['decode.loss_ce'] == 0
    assert losses['sisr.loss_mse'] > 0 and losses['fa.loss_fa'].isfinite()
    losses['sisr.loss_mse'].backward()
    assert trained.backbone.conv1.weight.grad.any()


# The model


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 96), (65, 97), (2, 3), (1, 40), (1, 1)], ids=str)
def test_the_network_sees_half_and_predicts_the_whole(
    model: nn.Module, size: tuple[int, int]
) -> None:
    seen = []
    hook = model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    result = model.predict(torch.randn(2, 3, *size))
    hook.remove()
    assert seen == [((size[0] + 1) // 2, (size[1] + 1) // 2)]
    assert all(one.pred_sem_seg.data.shape == (1, *size) for one in result)


def test_even_images_are_halved_to_the_means_of_four_pixels(model: nn.Module) -> None:
    image = torch.randn(1, 3, 10, 14)
    torch.testing.assert_close(model.halve(image), F.avg_pool2d(image, 2))


def test_antialias_halves_like_pil() -> None:
    image = torch.randn(1, 3, 10, 15)
    halved = dsrl(antialias=True).halve(image)[0]
    for own, channel in zip(halved, image[0], strict=True):
        expected = np.asarray(Image.fromarray(channel.numpy()).resize((8, 5), Image.BILINEAR))
        torch.testing.assert_close(own, torch.from_numpy(expected.copy()))


@torch.no_grad()
def test_sizes_come_from_the_images_and_results_go_back_to_the_files(model: nn.Module) -> None:
    images = torch.randn(2, 3, 48, 64)
    plain = model(images)
    meta = dict(ori_shape=(96, 120), img_shape=(48, 60), padding_size=(0, 4, 0, 0))
    flips = dict(flip=True, flip_direction='horizontal')
    samples = [SegDataSample(metainfo=meta), SegDataSample(metainfo=meta | flips)]
    for own, sample, flip in zip(plain, model.predict(images, samples), (False, True), strict=True):
        kept = own[None, ..., :60].flip(3) if flip else own[None, ..., :60]
        expected = F.interpolate(kept, (96, 120), mode='bilinear')[0]
        torch.testing.assert_close(sample.seg_logits.data, expected)


@torch.no_grad()
def test_windows_are_halved_one_by_one(model: nn.Module) -> None:
    slide = copy.deepcopy(model)
    slide.test_cfg = ConfigDict(mode='slide', crop_size=(64, 64), stride=(64, 32))
    image = torch.randn(1, 3, 64, 96)
    result = slide.predict(image)[0].seg_logits.data
    torch.testing.assert_close(result[..., :32], model(image[..., :64])[0, ..., :32])
    torch.testing.assert_close(result[..., 64:], model(image[..., 32:])[0, ..., 32:])
    small = slide.predict(image[..., :40, :50])[0].seg_logits.data
    padded_image = F.pad(image[..., :40, :50], (0, 14, 0, 24))
    torch.testing.assert_close(small, model(padded_image)[0, :, :40, :50])


@pytest.mark.parametrize('head', HEADS)
def test_every_head_takes_part(head: str, tmp_path: Path) -> None:
    line, keys = HEADS[head]
    base = CONFIG_DIR / '_base_' / 'models' / 'hrnet18s.py'
    model = build(shrunk(base, f"dict(type='DSRL', decode_head={line})", tmp_path)).train()
    images, samples = make_batch(model)
    losses = model.loss(images, samples)
    own = {f'decode.{key}' for key in keys}
    assert set(losses) == own | {'sisr.loss_mse', 'sisr.psnr', 'fa.loss_fa'}
    sum(value.mean() for name, value in losses.items() if 'loss' in name).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    pixel = (90, 3)
    maps = model.explain(images, samples, pixel=pixel)
    assert {'image_reconstructed', 'affinity_difference', 'affinity_of_seg'} <= set(maps)
    assert all(values.isfinite().all() for values in maps.values())


def test_the_upsampler_takes_the_logits_and_leaves_what_else_the_head_returns() -> None:
    model = dsrl(OCR).train()
    seen = []
    by_feat = model.decode_head.loss_by_feat
    model.decode_head.loss_by_feat = lambda out, data: (seen.append(out), by_feat(out, data))[1]
    losses = model.loss(*make_batch(model, size=(64, 96)))
    assert [x.shape[2:] for x in seen[0]] == [(64, 96), (8, 12)]
    assert {'decode.loss_ce', 'decode.loss_aux'} < set(losses)


def test_all_branches_are_in_the_optimizer_and_learn(model: nn.Module) -> None:
    model = copy.deepcopy(model).train()
    cfg = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    wrapper = build_optim_wrapper(model, ConfigDict(cfg))
    held = {id(p) for group in wrapper.param_groups for p in group['params']}
    parts = (model.sssr, model.sisr, model.fa_transform)
    before = [copy.deepcopy(part.state_dict()) for part in parts]
    wrapper.update_params(total_loss(model, make_batch(model)))
    for part, old in zip(parts, before, strict=True):
        for name, parameter in part.named_parameters():
            assert id(parameter) in held
            assert not torch.equal(parameter, old[name]), name


@torch.no_grad()
def test_predictions_do_not_need_what_only_training_has(model: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 96)
    expected = model(images)
    bare = dsrl(sisr=None).eval()
    assert not any(re.match('sisr|fa_', name) for name in bare.state_dict())
    plain = convert('plain', model.state_dict())
    assert set(plain) == set(bare.state_dict()) < set(model.state_dict())
    for weights in (plain, model.state_dict()):
        for other in (bare, dsrl().eval()):
            other.load_state_dict(weights)
            torch.testing.assert_close(other(images), expected, rtol=0, atol=0)
    broken = copy.deepcopy(model)
    broken.sisr = broken.fa_transform = broken.loss_fa = None
    torch.testing.assert_close(broken(images), expected, rtol=0, atol=0)


def test_weights_of_another_model_are_not_taken_for_plain_ones(model: nn.Module) -> None:
    weights = model.state_dict()
    del weights['sisr.conv_image.bias']
    with pytest.raises(RuntimeError, match=r'Missing key.*sisr\.conv_image\.bias'):
        dsrl().load_state_dict(weights)


def test_affinity_compares_features_before_the_dropout() -> None:
    model = dsrl(FCN | dict(dropout_ratio=0.5)).train()
    seen: list[Tensor] = []
    model.fa_transform.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.decode_head.dropout.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.loss(*make_batch(model))
    undropped, compared = seen
    assert compared is undropped


def test_parts_are_left_out_one_by_one() -> None:
    keys = {'decode.loss_ce', 'decode.acc_seg'}
    for changes, more in (
        (dict(loss_fa=None), {'sisr.loss_mse', 'sisr.psnr'}),
        (dict(sisr=None), set()),
        (dict(sisr=None, sssr=None), set()),
        (dict(fa_in='outputs'), {'sisr.loss_mse', 'sisr.psnr', 'fa.loss_fa'}),
    ):
        model = dsrl(**changes).train()
        loss = model.loss(*make_batch(model))
        assert set(loss) == keys | more
        sum(v for k, v in loss.items() if 'loss' in k).backward()
        assert all(p.grad is not None for p in model.parameters())


def test_the_psnr_of_the_reconstruction_is_that_of_its_picture() -> None:
    model = dsrl().train()
    images, samples = make_batch(model, size=(64, 96), ignored=0.5)
    pictures: list[Tensor] = []
    model.sisr.register_forward_hook(lambda *args: pictures.append(args[2][0].detach()))
    logged = model.loss(images, samples)['sisr.psnr']
    assert not logged.requires_grad
    error = (model._rgb(pictures[0]) - model._rgb(images)).square().mean()
    torch.testing.assert_close(logged, 10 * torch.log10(1 / error), rtol=1e-4, atol=1e-4)


def test_the_psnr_counts_valid_pixels_only() -> None:
    reference = torch.rand(1, 3, 4, 6)
    image, valid = reference.clone(), torch.ones(1, 1, 4, 6, dtype=torch.bool)
    image[..., :2] += 0.1
    assert peak_signal_to_noise(image, reference, valid).item() == pytest.approx(24.771, abs=1e-2)
    valid[..., :2] = False
    assert peak_signal_to_noise(image, reference, valid).item() == pytest.approx(100)


@torch.no_grad()
def test_without_upsampler_logits_are_resized_in_one_step() -> None:
    model = dsrl(sisr=None, sssr=None).eval()
    images = torch.randn(1, 3, 64, 96)
    *_, logits, full = model.run_head(model.extract_feat(images), (64, 96), {})
    torch.testing.assert_close(full, F.interpolate(logits, (64, 96), mode='bilinear'))


def test_ablations_differ_in_what_they_leave_out() -> None:
    for name in ('r101_deeplabv3plus_cityscapes', 'hrnet18s_camvid'):
        full, sisr, sssr = (
            Config.fromfile(CONFIG_DIR / 'dsrl' / f'{name}{what}.py').to_dict()
            for what in ('', '_sssr_sisr', '_sssr')
        )
        assert sisr['model'] == full['model'] | dict(loss_fa=None)
        assert sssr['model'] == full['model'] | dict(sisr=None)
    baseline = Config.fromfile(CONFIG_DIR / 'fcn' / 'hrnet18s_camvid.py')
    assert full['model'] | dict(type=baseline.model.type) == baseline.model.to_dict()
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness'):
        assert full[key] == baseline.to_dict()[key]
    assert full['train_dataloader']['batch_size'] == baseline.train_dataloader.batch_size


def test_the_second_stage_of_espnetv2_trains_all_but_the_norms_of_the_first() -> None:
    first, second = (
        tiny(CONFIG_DIR / 'dsrl' / f'espnetv2_cityscapes{end}.py') for end in ('', '_1024x2048')
    )
    first.train().loss(*make_batch(first))
    second.load_state_dict(first.state_dict(), strict=True)
    total_loss(second.train(), make_batch(second)).backward()
    torch.testing.assert_close(dict(second.named_buffers()), dict(first.named_buffers()))
    trained = {id(p) for p in second.parameters() if p.grad is not None}
    norms = [m for m in second.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    frozen = {id(p) for norm in norms for p in norm.parameters()}
    assert trained == {id(p) for p in second.parameters()} - frozen

    for end, batch, lr, sees in (('', 25, 9e-3, (256, 512)), ('_1024x2048', 6, 5e-3, (512, 1024))):
        cfg = prepare.load_config(str(CONFIG_DIR / 'dsrl' / f'espnetv2_cityscapes{end}.py'))
        assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr) == (batch, lr)
        image = dict(img=np.zeros((1024, 2048, 3), np.uint8), img_shape=(1024, 2048))
        resized = [Compose([t])(image) for t in cfg.test_pipeline if t.type == 'Resize']
        assert halved((resized or [image])[-1]['img'].shape[:2]) == sees
        assert halved(cfg.crop_size) == sees


@pytest.mark.parametrize('name', ['espnetv2_cityscapes', 'hrnet18s_streets'])
def test_an_image_of_a_few_pixels_predicts_and_trains_or_is_refused(name: str) -> None:
    model = tiny(CONFIG_DIR / 'dsrl' / f'{name}.py')
    for size in ((1, 97), (97, 1), (1, 1)):
        images, samples = make_batch(model.eval(), size=size)
        with torch.no_grad():
            assert model(images).shape == (2, 19, *size) and model(images).isfinite().all()
        try:
            loss = total_loss(model.train(), (images, samples))
        except ValueError as error:
            assert re.search(BATCH_NORM, str(error))
        else:
            loss.backward()
            assert loss.isfinite()


@torch.no_grad()
def test_exports(model: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 96)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), model(images), rtol=1e-4, atol=1e-5)


# Pictures


def test_the_reconstruction_is_shown_in_the_colours_of_the_image() -> None:
    stats = dict(type='SegDataPreProcessor', mean=[100.0, 120, 140], std=[50.0, 60, 70])
    model = dsrl(loss_fa=None, data_preprocessor=stats | dict(bgr_to_rgb=False)).eval()
    images = torch.randn(2, 3, 64, 96)  # blue, green, red
    model.sisr.forward = lambda levels, size: (2 * images - 1, levels[0])
    maps = model.explain(images)
    assert set(maps) == {'image_reconstructed'}
    colors = (2 * images - 1) * model.data_preprocessor.std + model.data_preprocessor.mean
    torch.testing.assert_close(maps['image_reconstructed'], colors.clamp(0, 255).flip(1) / 255)


def test_maps_show_where_the_branches_disagree(model: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 96)
    maps = model.explain(images, pixel=(90, 10))
    for name in ('affinity_of_seg', 'affinity_of_sr'):
        assert maps[name].shape == (2, 1, 8, 12)
        torch.testing.assert_close(maps[name][:, 0, 1, 11], torch.ones(2))
    levels = model.extract_feat(images)
    _, feats, _, _ = model.run_head(levels, (64, 96), {})
    _, sr_feats = model.sisr(levels, (64, 96))
    loss = model.loss_fa(model.fa_transform(feats), sr_feats, (64, 96))
    torch.testing.assert_close(maps['affinity_difference'].mean(), loss)


def test_a_model_without_these_branches_explains_what_its_head_does() -> None:
    model = dsrl(sisr=None).eval()
    assert not model.explains and not model.explains_pixels
    assert model.explain(torch.randn(1, 3, 32, 48)) == {}
    with pytest.raises(ValueError, match='FCNHead does not explain single pixels'):
        model.explain(torch.randn(1, 3, 32, 48), pixel=(1, 1))


# Refusals


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(head=[FCN, FCN]), 'got a cascade of 2'),
        (
            dict(head=dict(type='PixelContrastHead', head=FCN)),
            'DSRL cannot take PixelContrastHead, which wraps',
        ),
        (
            dict(head=dict(type='OCRHead', channels=8, ocr_channels=8, num_classes=5, **LEVEL)),
            'DSRL cannot take OCRHead',
        ),
        (dict(head=dict(type='HMSAHead', head=FCN)), "only type='HMSA' uses"),
        (dict(fa_in='logits'), "fa_in='logits' must be 'features' or 'outputs'"),
        (dict(loss_sisr=None), 'sisr without loss_sisr'),
        (dict(loss_fa=dict(q=3)), 'q is 1 or 2'),
        (dict(loss_fa=dict(stride=0)), 'stride 1 or more'),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_with_a_sentence(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dsrl(**changes)
