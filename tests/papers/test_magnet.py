"""Properties of MagNet: what is cut out and where it goes back, which points change, refusals."""

import copy
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.models.losses import OhemCrossEntropy
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.checkpoints.fit import check_weights
from mmseg_ext.convert import convert
from mmseg_ext.datasets import LoadImage
from mmseg_ext.losses import WeightedCELoss
from mmseg_ext.papers.magnet import MagNetRefiner
from mmseg_ext.papers.magnet.memory import PatchBatches
from mmseg_ext.papers.magnet.patches import (
    count_covering_patches,
    crop_patches,
    crop_windows,
    patch_corners,
    resize,
    roi_align,
)
from mmseg_ext.papers.magnet.points import certainty, median_filter, nearest, select_points
from mmseg_ext.papers.magnet.refinement import Refinement
from mmseg_ext.papers.magnet.samples import mean_iou
from mmseg_ext.papers.magnet.scales import doubled_sizes
from mmseg_ext.papers.magnet.settings import Inference
from tests.oracles.magnet import (
    certainty_released,
    median_released,
    most_certain_change,
    pipeline_released,
)
from tests.tiny import CONFIG_DIR, build, make_batch, shrink, small_hrnet, total_loss

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'MagNet': dict(patch_size=(32, 48), scales=((32, 48), (64, 96)), input_size=None),
    'MagNetFPNHead': dict(level_channels=8),
    'MagNetOCRHead': dict(channels=16, ocr_channels=8),
    'MagNetRefiner': dict(channels=8),
}

CLASSES = 5
SCALES = ((16, 24), (32, 48), (64, 96))
FCN = dict(
    type='EncoderDecoder',
    backbone=dict(type='HRNetExact', extra=small_hrnet()),
    decode_head=dict(
        type='FCNHead',
        channels=8,
        num_classes=CLASSES,
        in_channels=[4, 8, 16, 32],
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        norm_cfg=dict(type='BN'),
    ),
    test_cfg=dict(mode='whole'),
)


def magnet(segmentor: dict = FCN, **kwargs: Any) -> nn.Module:
    """In float64, so that batches of other sizes rank pixels alike; of telling predictions."""
    cfg = dict(type='MagNet', segmentor=segmentor, patch_size=SCALES[0], scales=SCALES)
    model = build(cfg | dict(refiner=dict(type='MagNetRefiner', channels=8)) | kwargs)
    for module in (model.segmentor.decode_head, *model.refiners):
        nn.init.normal_(module.conv_seg.weight, std=2.0)
    return model.double().eval()


@pytest.fixture(scope='module')
def trained() -> nn.Module:
    return magnet()


@pytest.fixture
def model(trained: nn.Module) -> nn.Module:
    return copy.deepcopy(trained)


@pytest.fixture(scope='module')
def image() -> Tensor:
    coarse = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(3))
    return resize(coarse, (64, 96)).double()


def how(model: nn.Module, **changes: Any) -> nn.Module:
    model.inference = Inference.from_cfg({**vars(model.inference), **changes})
    return model


def segmentor_alone(model: nn.Module, image: Tensor) -> Tensor:
    size = model.patch_size
    logits = model.segmentor.encode_decode(
        resize(image, size), [dict(img_shape=size, pad_shape=size)]
    )
    return logits.softmax(1)


# What each scale changes


@torch.no_grad()
@pytest.mark.parametrize('change', [dict(stages=1), dict(n_points=0), dict(n_patches=0)], ids=str)
def test_without_refinement_it_is_the_segmentor_on_the_small_image(
    model: nn.Module, image: Tensor, change: dict
) -> None:
    probs = segmentor_alone(model, image)
    for size in SCALES[1:] if 'stages' not in change else SCALES[2:]:
        probs = resize(probs, size)
    found = how(model, **change).probabilities(image)
    torch.testing.assert_close(found, probs, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize('points', [1, 700, 0.3])
def test_exactly_the_wanted_points_change(model: nn.Module, image: Tensor, points: float) -> None:
    for stage in list(how(model, n_points=points).stages(image))[1:]:
        size = stage.points.shape
        count = points if points > 1 else int(size[0] * size[1] * points)
        assert stage.points.sum() == min(count, stage.points.numel())
        before = resize(stage.before, tuple(size))
        changed = (stage.probs != before).any(dim=1)[0]
        assert not (changed & ~stage.points).any()
        assert changed[stage.points].float().mean() > 0.9


@torch.no_grad()
def test_a_refiner_that_repeats_the_patch_puts_it_where_it_was_cut(
    model: nn.Module, image: Tensor
) -> None:
    model.refiners[0].forward = lambda fine, coarse: fine.log()
    size = SCALES[2]
    (h, w) = SCALES[0]
    found = how(model, n_points=1.0).probabilities(image)
    for y, x in patch_corners(size, SCALES[0]):
        alone = model.segment(crop_patches(image, [(y, x)], SCALES[0]), [(y, x)], size)
        torch.testing.assert_close(found[..., y : y + h, x : x + w], alone, rtol=0, atol=1e-9)


@torch.no_grad()
def test_a_refiner_that_repeats_what_is_known_only_blurs_it(
    model: nn.Module, image: Tensor
) -> None:
    model.refiners[0].forward = lambda fine, coarse: coarse.log()
    known = how(model, n_points=0).probabilities(image)
    found = how(model, n_points=1.0).probabilities(image)
    assert (found - known).abs().mean() < 0.1 * (known - known.mean((2, 3), keepdim=True)).std()


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 96), (65, 97), (50, 131)], ids=str)
@pytest.mark.parametrize('scales', [SCALES, ((16, 24), (35, 41), (61, 90)), None], ids=str)
def test_probabilities_sum_to_one_whatever_the_sizes(size: tuple, scales: Any) -> None:
    model = how(magnet(scales=scales), n_points=1.0)
    probs = model.probabilities(torch.randn(1, 3, *size).double())
    assert probs.shape == (1, CLASSES, *size)
    torch.testing.assert_close(probs.sum(1), torch.ones_like(probs[:, 0]))


@torch.no_grad()
@pytest.mark.parametrize('scales', [SCALES, ((16, 24), (35, 41))], ids=str)
def test_the_order_of_patches_does_not_matter(
    image: Tensor, scales: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = magnet(scales=scales)
    expected = model.probabilities(image)

    def shuffled(*args: Any, **kwargs: Any) -> list:
        places = patch_corners(*args, **kwargs)
        return [places[i] for i in torch.randperm(len(places)).tolist()]

    monkeypatch.setattr('mmseg_ext.papers.magnet.refinement.patch_corners', shuffled)
    for _ in range(3):
        torch.testing.assert_close(model.probabilities(image), expected, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize('pixels', [1, 3 * 16 * 24, 10**9])
def test_batches_of_patches_equal_one_at_a_time(
    model: nn.Module, image: Tensor, pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('mmseg_ext.papers.magnet.memory.CPU_PIXELS', pixels)
    how(model, n_points=900)
    torch.testing.assert_close(
        model.probabilities(image), pipeline_released(model, image), rtol=0, atol=1e-9
    )


@torch.no_grad()
def test_each_scale_has_its_refiner(image: Tensor) -> None:
    model = magnet(num_refiners=2)
    used: list[int] = []
    for i, refiner in enumerate(model.refiners):
        refiner.register_forward_hook(lambda *args, i=i: used.append(i))
    assert len(list(model.stages(image))) == 3
    assert sorted(set(used)) == used[:: len(used) - 1] == [0, 1]


@torch.no_grad()
def test_patches_resized_for_the_network_come_back(image: Tensor) -> None:
    model = how(magnet(input_size=(20, 22)), n_points=300)
    torch.testing.assert_close(
        model.probabilities(image), pipeline_released(model, image), rtol=0, atol=1e-9
    )


# Points


def test_certainty_is_the_lead_of_the_first_class() -> None:
    probs = torch.randn(2, 7, 9, 11).softmax(1)
    assert torch.equal(certainty(probs), certainty_released(probs))
    assert certainty(torch.full((1, 4, 2, 2), 0.25)).eq(0).all()
    assert certainty(F.one_hot(torch.arange(4), 4).T[None, ..., None].float()).eq(1).all()


@pytest.mark.parametrize('kernel', [1, 5, 11])
def test_median_is_taken_with_zeros_outside(kernel: int) -> None:
    x = torch.rand(37, 50)
    assert torch.equal(median_filter(x, kernel), median_released(x[None, None], kernel)[0, 0])


def test_constant_scores_vanish_in_the_corners_alone() -> None:
    smooth = median_filter(torch.full((9, 9), 0.5), 5)
    assert smooth[0, 0] == smooth[8, 8] == 0
    assert (smooth[2:-2] == 0.5).all() and smooth[0, 4] == 0.5


def test_strips_do_not_change_the_median(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(23, 31)
    whole = median_filter(x, 5)
    monkeypatch.setattr('mmseg_ext.papers.magnet.points.MEDIAN_VALUES', 25 * 31 * 4)
    assert torch.equal(median_filter(x, 5), whole)


@pytest.mark.parametrize('size', [(48, 96), (50, 77), (24, 48), (11, 130)], ids=str)
@pytest.mark.parametrize('levels', [3, 1000])
def test_points_are_those_of_sorting_all_pixels_stably(size: tuple, levels: int) -> None:
    score = torch.randint(levels, (24, 48)).float() / levels
    wide = F.interpolate(score[None, None], size)
    assert torch.equal(nearest(score, size), wide[0, 0])
    for count in (1, 100, wide.numel() // 2, wide.numel()):
        expected = torch.zeros(size, dtype=torch.bool)
        expected.flatten()[most_certain_change(wide, count)] = True
        assert torch.equal(select_points(score, count, size), expected)


# MagNet-Fast


def uncertainty_of_patches(model: nn.Module, stage: Any) -> tuple[list, Tensor]:
    size = tuple(stage.points.shape)
    places = patch_corners(size, model.patch_size)
    unsure = 1 - certainty(resize(stage.before, size))
    return places, crop_windows(unsure, places, model.patch_size, model.input_size).mean((1, 2, 3))


@torch.no_grad()
@pytest.mark.parametrize('as_released', [False, True])
def test_few_patches_are_the_least_certain_ones(image: Tensor, as_released: bool) -> None:
    model = how(magnet(as_released=as_released), n_points=0.9, n_patches=3, smooth_kernel=1)
    for stage in list(model.stages(image))[1:]:
        places, means = uncertainty_of_patches(model, stage)
        order = means.argsort(descending=not as_released).tolist()
        frame = min(SCALES[0]) // 4
        reach = count_covering_patches(
            [places[i] for i in order[:3]], SCALES[0], tuple(stage.points.shape), frame
        )
        assert stage.points.any() and not (stage.points & (reach == 0)).any()
        budget = stage.points.numel() * 0.9 * 3 / len(places)
        assert stage.points.sum() <= budget


# Patches


@pytest.mark.parametrize('length', range(7, 40))
@pytest.mark.parametrize('patch', [3, 7])
def test_patches_cover_an_axis_from_end_to_end(length: int, patch: int) -> None:
    places = patch_corners((patch, length), (patch, patch))
    assert count_covering_patches(places, (patch, patch), (patch, length), 0).min() >= 1
    assert places[0] == (0, 0) and places[-1] == (0, length - patch)
    assert len(places) == -(-length // patch)


def test_columns_come_before_rows() -> None:
    assert patch_corners((4, 6), (2, 3)) == [(0, 0), (2, 0), (0, 3), (2, 3)]


def test_an_image_is_doubled_up_to_its_size() -> None:
    assert doubled_sizes((128, 256), (1024, 2048)) == [(128 << i, 256 << i) for i in range(4)]
    assert doubled_sizes((16, 24), (16, 24)) == doubled_sizes((16, 24), (9, 3)) == [(16, 24)]
    sizes = doubled_sizes((16, 24), (10, 100))
    assert sizes[0] == (16, 24) and sizes[-1] == (16, 100)
    assert all(1 <= b[1] / a[1] <= 2.05 for a, b in zip(sizes, sizes[1:], strict=False))


def test_a_ramp_is_read_half_a_pixel_on() -> None:
    ramp = torch.arange(20.0).expand(1, 1, 20, 20)
    found = roi_align(ramp, [(3, 2, 11, 10)], (8, 8))
    assert torch.equal(found[0, 0, 0], torch.arange(3.0, 11.0) + 0.5)


@pytest.mark.parametrize('size', [(6, 8), (4, 9), (9, 8), (2, 3)], ids=str)
def test_windows_are_roi_align_at_whole_pixels(size: tuple) -> None:
    maps, patch = torch.rand(1, 3, 20, 29), (6, 8)
    places = patch_corners((20, 29), patch)
    boxes = [(x, y, x + 8, y + 6) for y, x in places]
    torch.testing.assert_close(
        crop_windows(maps, places, patch, size), roi_align(maps, boxes, size)
    )


# Training


def test_training_feeds_the_refiner_as_inference_does(image: Tensor) -> None:
    for as_released in (False, True):
        model = magnet(as_released=as_released)
        seen: list[tuple] = []
        model.refiners[0].register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args))
        images, samples = make_batch(model.train(), size=SCALES[2])
        model.loss(images.double(), samples)
        (first, second), whole = seen[0], segmentor_alone(model, images[:1].double())
        fine, coarse = (second, first) if as_released else (first, second)
        # the crop of the whole image's prediction has its range of values, and is smoother
        rough = [(x[0] - x[0].roll(1, -1))[..., 1:].abs().mean() for x in (fine, coarse)]
        assert rough[0] > rough[1]
        assert coarse[0].amax() <= whole.amax() + 1e-9


def test_a_patch_comes_with_its_label_and_its_place(model: nn.Module) -> None:
    height, width = SCALES[2]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    image = torch.stack([rows, columns, rows * width + columns])[None].double()
    label = rows * width + columns
    whole = resize(image, model.patch_size)
    for _ in range(20):
        sample = model.draw_sample(image, label, 0)
        fine = crop_patches(resize(image, sample.size), [sample.corner], model.patch_size)
        assert torch.equal(sample.fine, fine)
        if sample.size == SCALES[2]:
            assert torch.equal(sample.label[0], fine[0, 2].long())
        coarse = roi_align(whole, [sample.box], model.input_size)
        step = max(height / SCALES[0][0], width / SCALES[0][1])
        assert (coarse - fine)[:, :2, 2:-2, 2:-2].abs().max() <= step


def test_every_scale_and_place_is_drawn(model: nn.Module) -> None:
    image, label = torch.zeros(1, 3, 34, 50), torch.zeros(34, 50, dtype=torch.long)
    model.scales = [(16, 24), (17, 26), (34, 50)]
    samples = [model.draw_sample(image, label, 0) for _ in range(300)]
    assert {one.corner for one in samples if one.size == (17, 26)} == {
        (y, x) for y in range(2) for x in range(3)
    }
    assert {one.size for one in samples} == {(17, 26), (34, 50)}


def test_the_segmentor_stays_as_it_is() -> None:
    model = magnet().float().train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        total_loss(model, make_batch(model, size=SCALES[2])).backward()
        optimizer.step()
    moved = {n for n, x in model.state_dict().items() if not torch.equal(x, before[n])}
    assert moved == {name for name in before if name.startswith('refiners.')}
    assert not any(module.training for module in model.segmentor.modules())


def test_padding_of_a_batch_is_not_seen() -> None:
    model = magnet().float().eval()
    images, samples = make_batch(model, size=(50, 70), count=1)
    padded = F.pad(images, (0, 26, 0, 14), value=9.0)
    more = SegDataSample(
        gt_sem_seg=PixelData(data=F.pad(samples[0].gt_sem_seg.data, (0, 26, 0, 14), value=255)),
        metainfo=dict(padding_size=(0, 26, 0, 14)),
    )
    torch.manual_seed(0)
    alone = model.loss(images, samples)
    torch.manual_seed(0)
    assert all(torch.equal(x, alone[n]) for n, x in model.loss(padded, [more]).items())


@pytest.mark.parametrize('min_kept', [1, 300, 10**6])
def test_loss_is_the_hosts_where_that_is_defined(min_kept: int) -> None:
    logits = (3 * torch.randn(2, CLASSES, 12, 20)).requires_grad_()
    label = torch.randint(CLASSES, (2, 12, 20))
    label[:, :4] = 255
    ours = WeightedCELoss(threshold=0.7, strict=True, min_kept=min_kept)(logits, label)
    theirs = OhemCrossEntropy(thres=0.7, min_kept=min_kept)(logits, label)
    torch.testing.assert_close(ours, theirs)
    pair = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*pair)


def test_loss_without_hard_pixels_or_labels_is_a_connected_zero() -> None:
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 0] = 5
    for value in (0, 255):
        x = logits.clone().requires_grad_()
        loss = WeightedCELoss(threshold=0.7, strict=True)(x, torch.full((1, 4, 4), value))
        loss.backward()
        assert loss == 0 and x.grad.eq(0).all()


def test_inputs_of_the_refiner_are_told_apart() -> None:
    refiner = MagNetRefiner(num_classes=3, channels=8).eval()
    fine, coarse = torch.rand(2, 1, 3, 6, 7).unbind(0)
    assert not torch.allclose(refiner(fine, coarse), refiner(coarse, fine), atol=1e-3)
    other = MagNetRefiner(num_classes=3, channels=8, coarse_first=True).eval()
    other.load_state_dict(refiner.state_dict())
    assert torch.equal(other(fine, coarse), refiner(coarse, fine))


def test_the_released_size_is_met() -> None:
    for classes, count in ((19, 103_500), (7, 88_092)):
        assert sum(p.numel() for p in MagNetRefiner(num_classes=classes).parameters()) == count


# Large images


def resident(field: str) -> int:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


class Pointwise(nn.Module):
    """Stands for a segmentor that needs no memory."""

    num_classes = out_channels = 19

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 19, 1)

    def encode_decode(self, inputs: Tensor, metas: list[dict]) -> Tensor:
        return self.conv(inputs)


MODELS.register_module(module=Pointwise)


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='Linux measures the peak')
@torch.no_grad()
def test_memory_stays_below_the_limit_however_large_the_image() -> None:
    limit = 100  # MiB; all maps of the image would take 600
    model = build(
        dict(
            type='MagNet',
            segmentor=dict(type='Pointwise'),
            patch_size=(128, 128),
            refiner=dict(type='MagNetRefiner', channels=8),
            test_cfg=dict(memory_limit=limit),
        )
    ).eval()
    image = torch.rand(1, 3, 1600, 1800)
    model.probabilities(image[..., :256, :256])  # loads what a first run loads
    Path('/proc/self/clear_refs').write_text('5')
    before = resident('VmRSS')
    sample = model.predict(image)[0]
    assert sample.pred_sem_seg.data.shape == (1, 1600, 1800)
    assert resident('VmHWM') - before < limit * 2**20


def test_a_patch_is_measured_once_on_a_gpu_and_the_peak_statistics_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cleared: list[bool] = []
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: cleared.append(True))
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda device: 300)
    monkeypatch.setattr(torch.cuda, 'memory_reserved', lambda device: 400)
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', None)  # not called
    batches, gpu = PatchBatches((16, 24)), torch.device('cuda')
    corners = [(0, x) for x in range(9)]

    def lengths(free_bytes: int) -> list[int]:
        runs = batches.run(
            lambda batch: torch.tensor(batch), corners, device=gpu, free_bytes=free_bytes
        )
        pairs = list(runs)
        assert torch.cat([result for _, result in pairs]).tolist() == [list(c) for c in corners]
        return [len(batch) for batch, _ in pairs]

    assert lengths(350) == [1, 3, 3, 2] and batches.patch_bytes == 100
    assert lengths(-1) == [1] * 9 and lengths(10**6) == [9]
    assert cleared == [True]


def test_tiles_are_images_of_their_own(image: Tensor) -> None:
    model = magnet(scales=None)
    whole = model.predict(image)[0].pred_sem_seg.data
    how(model, memory_limit=64 * 96 * (9 * CLASSES + 48) / 2**20)
    tiles = model.tiles_of((64, 96))
    assert tiles == [(slice(0, 64), slice(0, 48)), (slice(0, 64), slice(48, 96))]
    sample = model.predict(image, [SegDataSample(metainfo=dict(ori_shape=(128, 192)))])[0]
    found = sample.pred_sem_seg.data[0, ::2, ::2]
    assert 'seg_logits' not in sample
    for rows, columns in tiles:
        alone = model.probabilities(image[..., rows, columns])[0].argmax(0)
        assert torch.equal(found[rows, columns].long(), alone)
    assert (found == whole[0]).float().mean() > 0.5
    assert how(magnet(), memory_limit=1e-6).tiles_of((9000, 9000)) == [
        (slice(0, 9000), slice(0, 9000))
    ]


def test_a_small_image_is_enlarged_to_a_patch() -> None:
    model = magnet(scales=None)
    found = model.predict(torch.randn(2, 3, 5, 7).double())
    assert [one.pred_sem_seg.data.shape for one in found] == [(1, 5, 7)] * 2


# Explaining, loading, refusing


def test_every_scale_is_explained(model: nn.Module, image: Tensor) -> None:
    maps = how(model, n_points=200).explain(torch.cat([image, image.flip(3)]))
    assert list(maps) == ['prediction_0'] + [
        f'{name}_{s}' for s in (1, 2) for name in ('uncertainty', 'points', 'prediction')
    ]
    for s, size in enumerate(SCALES):
        assert maps[f'prediction_{s}'].shape == (2, CLASSES, *size)
        if s:
            assert maps[f'uncertainty_{s}'].min() >= 0 and maps[f'uncertainty_{s}'].max() <= 1
            assert maps[f'points_{s}'].sum((1, 2, 3)).tolist() == [200, 200]
    result = resize(maps['prediction_2'], (64, 96)).argmax(1)
    assert torch.equal(result[0], model.predict(image)[0].pred_sem_seg.data[0])


@pytest.mark.parametrize('name', ['hmsa/hrnet18s_ocr_camvid', 'hanet/hrnet18s_camvid'])
def test_any_segmentor_takes_part(name: str) -> None:
    segmentor = shrink(Config.fromfile(CONFIG_DIR / f'{name}.py').model.to_dict())
    model = build(
        dict(type='MagNet', segmentor=segmentor, patch_size=(32, 48), scales=((32, 48), (64, 96)))
    )
    images, samples = make_batch(model.train(), size=(70, 90))
    total_loss(model, (images, samples)).backward()
    found = model.eval().predict(images, samples)[0]
    assert found.seg_logits.data.shape == (11, 70, 90)


def test_a_checkpoint_of_the_segmentor_alone_is_its(model: nn.Module) -> None:
    plain = MODELS.build(ConfigDict(FCN))
    other = magnet()
    missing = other.load_state_dict(plain.state_dict(), strict=False)
    assert all(name.startswith('refiners.') for name in missing.missing_keys)
    assert not missing.unexpected_keys
    assert torch.equal(other.segmentor.backbone.conv1.weight, plain.backbone.conv1.weight.double())


def test_a_training_starts_from_all_of_its_segmentor(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / 'x.pth'
    weights = MODELS.build(ConfigDict(FCN)).state_dict()
    runner: Any = SimpleNamespace(model=magnet())
    torch.save(weights, path)
    check_weights(runner, str(path), strict=False)
    said = capsys.readouterr().out
    assert 'not in it: refiners.0' in said and 'warning' not in said
    partly = {name: x for name, x in weights.items() if not name.startswith('decode_head.convs')}
    for changed in (partly, weights | {'decode_head.conv_seg.bias': torch.zeros(CLASSES + 1)}):
        torch.save(changed, path)
        with pytest.raises(
            ValueError, match=r'does not fit MagNet\.segmentor, .*decode_head\.conv'
        ):
            check_weights(runner, str(path), strict=False)


def test_a_refiner_without_its_segmentor_is_refused() -> None:
    model = magnet()
    alone = {n: x for n, x in model.state_dict().items() if n.startswith('refiners.')}
    with pytest.raises(ValueError, match='a refiner without the segmentor .* give both files'):
        model.load_state_dict(alone)
    pretrained = dict(FCN, init_cfg=dict(type='Pretrained', checkpoint='x.pth'))
    model = MODELS.build(dict(type='MagNet', segmentor=pretrained, patch_size=(8, 8)))
    left = model.load_state_dict(MagNetRefiner(num_classes=CLASSES).state_dict(), strict=False)
    assert left.unexpected_keys
    left = model.load_state_dict(model.refiners.state_dict(prefix='refiners.'), strict=False)
    assert not left.unexpected_keys


def test_a_training_without_weights_of_the_segmentor_is_refused() -> None:
    runner: Any = SimpleNamespace(model=magnet())
    with pytest.raises(
        ValueError,
        match='MagNet needs the weights of a trained segmentor: name its checkpoint '
        'with --init PATH, or in the config with segmentor=dict',
    ):
        check_weights(runner, None, strict=False)
    init_cfg = dict(type='Pretrained', checkpoint='elsewhere://weights.pth')
    runner.model = MODELS.build(
        dict(type='MagNet', segmentor=dict(FCN, init_cfg=init_cfg), patch_size=(8, 8))
    )
    check_weights(runner, None, strict=False)


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(scales=((16, 24), (8, 48))), r'must start with patch_size=\(16, 24\).* and grow'),
        (dict(scales=((32, 48), (64, 96))), r'must start with patch_size=\(16, 24\)'),
        (dict(patch_size=(64, 200)), r'must start with patch_size=\(64, 200\)'),
        (dict(patch_size=16), r'patch_size=16 must be \(h, w\)'),
        (dict(test_cfg=dict(smooth_kernel=4)), 'smooth_kernel=4 has no middle'),
        (dict(test_cfg=dict(n_patches=-1)), 'n_patches=-1 must be at least 0'),
        (dict(test_cfg=dict(points=3)), 'does not know test_cfg.points: it reads n_points'),
        (dict(test_cfg=dict(memory_limit=0)), 'must be above 0 MiB'),
        (dict(num_refiners=0), 'num_refiners=0'),
        (
            dict(segmentor=FCN | dict(decode_head=FCN['decode_head'] | dict(num_classes=1))),
            'one output channel: give it num_classes=2',
        ),
    ],
    ids=lambda x: '' if isinstance(x, str) else str(x)[:40],
)
def test_what_cannot_be_is_refused_in_a_sentence(changes: dict, sentence: str) -> None:
    cfg = dict(type='MagNet', segmentor=FCN, patch_size=SCALES[0], scales=SCALES) | changes
    with pytest.raises(ValueError, match=sentence):
        MODELS.build(cfg)


def test_an_image_without_a_finer_scale_trains_nothing() -> None:
    model = magnet(scales=None).float()
    with pytest.raises(ValueError, match=r'of \(16, 20\) pixels .* take a smaller patch_size'):
        model.loss(*make_batch(model, size=(16, 20)))


# Released files


def released_refiner(classes: int = 3) -> dict[str, Tensor]:
    """A refiner's weights under their released names."""
    state = {}
    for name, x in MagNetRefiner(num_classes=classes).state_dict().items():
        name = re.sub(r'^conv(\d)\.conv\.', r'conv\1.', name)
        name = re.sub(r'^conv(\d)\.bn\.', r'bn\1.', name)
        state[name.replace('conv_seg', 'seg_conv')] = x
    return state


def test_released_files_become_one_checkpoint() -> None:
    refiner = released_refiner()
    assert len(refiner) == 60
    segmentor = {'model.conv1.weight': torch.ones(1), 'model.cls_head.bias': torch.ones(2)}
    assert set(convert('magnet', segmentor)) == {
        'backbone.conv1.weight',
        'decode_head.conv_seg.bias',
    }
    assert all(name.startswith('refiners.0.') for name in convert('magnet', refiner))
    whole = convert('magnet', segmentor, refiner, refiner)
    assert {name.partition('.')[0] for name in whole} == {'segmentor', 'refiners'}
    assert len(whole) == 2 + 2 * 60 and 'refiners.1.bn0.weight' in whole
    assert len(convert('magnet', refiner, refiner, refiner)) == 180


def test_files_in_another_order_or_of_another_paper_are_refused() -> None:
    refiner, segmentor = released_refiner(), {'conv1.weight': torch.ones(1)}
    with pytest.raises(ValueError, match='file 2 of 2 is no refiner.* segmentor first'):
        convert('magnet', refiner, segmentor)
    with pytest.raises(ValueError, match='hmsa was released in one file, got 2'):
        convert('hmsa', segmentor, segmentor)
    with pytest.raises(ValueError, match='1 of 61 names belong to another model: fc.weight'):
        convert('magnet', refiner | {'fc.weight': torch.ones(1)})


def test_accuracies_are_logged_beside_the_loss() -> None:
    model = magnet(num_refiners=2).float().train()
    losses = model.loss(*make_batch(model, size=SCALES[2]))
    assert set(losses) == {
        f'refiner_{i}.{key}'
        for i in (0, 1)
        for key in (
            'loss_ohem',
            *(
                f'{kind}_{part}'
                for kind in ('acc', 'miou')
                for part in ('coarse', 'fine', 'refined')
            ),
        )
    }
    assert all(0 <= x <= 100 for name, x in losses.items() if 'loss' not in name)


def test_the_mean_iou_is_that_of_the_classes_of_the_batch() -> None:
    label = torch.tensor([[[0, 0, 1, 255]]])
    scores = F.one_hot(torch.tensor([[[0, 1, 1, 3]]]), 5).movedim(-1, 1).float()
    # class 0: 1 of 2, class 1: 1 of 2; classes 2 to 4 do not occur at valid pixels
    assert mean_iou(scores, label, 255).item() == 50
    assert mean_iou(scores, torch.full_like(label, 255), 255).item() == 0


@torch.no_grad()
def test_confident_patches_can_be_skipped() -> None:
    model = magnet()
    coarse = torch.rand(1, 5, *SCALES[2], dtype=torch.double).softmax(1)
    coarse[:, :, :16, :24] = F.one_hot(torch.tensor(3), 5)[:, None, None].double()  # one patch
    image, corners = torch.randn(1, 3, *SCALES[2]).double(), patch_corners(SCALES[2], SCALES[0])

    def refinement(**settings: Any) -> Refinement:
        model.inference = Inference(n_points=0.5, smooth_kernel=1, **settings)
        return model._refinement(1)

    limited = refinement(min_patch_uncertainty=0.2)
    assert set(corners) - set(limited._choose(coarse, corners)) == {(0, 0)}
    points = limited.refine(image, coarse, SCALES[2]).points
    assert points.any() and not points[:16, :24].any()
    everywhere = refinement().refine(image, coarse, SCALES[2])
    unlimited = refinement(min_patch_uncertainty=1e-6).refine(image, coarse, SCALES[2])
    assert torch.equal(unlimited.probs, everywhere.probs)  # no patch is so confident
    none = refinement(min_patch_uncertainty=1.0).refine(image, coarse, SCALES[2])
    assert torch.equal(none.probs, coarse) and not none.points.any()


@pytest.mark.parametrize('value', [-0.1, 1.5])
def test_a_limit_of_the_uncertainty_is_a_probability(value: float) -> None:
    with pytest.raises(ValueError, match='min_patch_uncertainty=.* must be in'):
        magnet(test_cfg=dict(min_patch_uncertainty=value))


def test_grey_files_are_read_in_three_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'grey.png'), np.arange(96 * 64, dtype=np.uint8).reshape(64, 96))
    img = LoadImage()(dict(img_path=str(tmp_path / 'grey.png')))['img']
    found = magnet().predict(torch.from_numpy(img).permute(2, 0, 1)[None].double())
    assert found[0].pred_sem_seg.data.shape == (1, 64, 96)


def test_training_runs_a_folded_copy_that_follows_the_segmentor() -> None:
    model = magnet().train()
    batch = make_batch(model, size=(64, 96))
    batch = batch[0].double(), batch[1]
    names = list(model.state_dict())

    def losses() -> Tensor:
        torch.manual_seed(0)
        for refiner in model.refiners:
            refiner.eval()
        return model.loss(*batch)['loss_ohem'].detach()

    plain, folded = losses(), losses()  # the first one is that of the segmentor itself
    torch.testing.assert_close(folded, plain, rtol=1e-9, atol=0)
    assert model._frozen.copy is not None and list(model.state_dict()) == names
    with torch.no_grad():
        for parameter in model.segmentor.parameters():
            parameter.mul_(1.1)
    changed, again = losses(), losses()
    assert changed != plain
    torch.testing.assert_close(again, changed, rtol=1e-9, atol=0)
