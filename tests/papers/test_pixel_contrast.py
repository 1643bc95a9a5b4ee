"""Pixel contrast: sampling, loss and memory against slow forms, and what the release gets wrong."""

import copy
import itertools
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_ext.config import prepare
from mmseg_ext.convert import convert
from mmseg_ext.engine.buffers import Buffers
from mmseg_ext.papers.pixel_contrast import MemoryBank, PixelContrastLoss
from mmseg_ext.papers.pixel_contrast import loss as loss_module
from mmseg_ext.papers.pixel_contrast.memory import class_means
from mmseg_ext.papers.pixel_contrast.sampling import labels_at, pixels_at, sample_anchors
from tests.engine.tiny_run import KILLED, assert_same, config, last_checkpoint, resumed, train
from tests.oracles.pixel_contrast import Queue, groups_of, infonce
from tests.papers import contrast_processes
from tests.test_swap import BASES, HEADS, shrunk, trains_predicts_and_explains
from tests.tiny import CONFIG_DIR, IGNORE_INDEX, build, make_batch, small_hrnet, total_loss

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'PixelContrastHead': dict(proj_channels=8),
    'PixelContrastLoss': dict(warmup_iters=0, max_views=4),
    'MemoryBank': dict(size=8),
    'OpensegASPPHead': dict(channels=16),
    'OpensegOCRHead': dict(channels=16, ocr_channels=8),
    'OpensegResNet': dict(base_channels=8, stem_channels=8, zero_init_residual=False),
}

K, D = 5, 6
LEVELS = dict(in_channels=[4, 8, 16, 32], in_index=[0, 1, 2, 3])
FCN = dict(type='FCNHead', channels=8, num_convs=1, input_transform='resize_concat', **LEVELS)
OCR = dict(type='OCRNetHead', channels=16, ocr_channels=8, **LEVELS)


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, D, generator=generator, dtype=dtype), dim=-1)


def anchors(*classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, classes, and that all are valid."""
    own = torch.tensor(classes)
    return unit(len(own)).requires_grad_(), own, torch.ones_like(own, dtype=torch.bool)


def filled_bank(*counts: int, size: int = 6, **kwargs: Any) -> MemoryBank:
    """So many of each class in each queue; what is not filled is far from nothing."""
    bank = MemoryBank(len(counts), D, size=size, **kwargs).double()
    bank.vectors.copy_(unit(*bank.vectors.shape[:3], seed=1))
    bank.written.copy_(torch.tensor(counts)[:, None].expand_as(bank.written))
    bank.vectors[~bank.filled.view(bank.vectors.shape[:3])] = 100.0
    return bank


def rows_of(bank: MemoryBank) -> tuple[Tensor, list[int]]:
    """The filled rows and their classes."""
    filled = bank.filled
    return bank.vectors.flatten(1, 2)[filled], filled.nonzero()[:, 0].tolist()


def labels(seed: int = 0, size: tuple[int, int] = (12, 10), ignored: float = 0.1) -> Tensor:
    """(3, h, w) of blocks of K classes, K where ignored."""
    generator = torch.Generator().manual_seed(seed)
    h, w = size
    blocks = torch.randint(0, K, (3, h // 2, w // 2), generator=generator)
    label = blocks.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return label.masked_fill(torch.rand(label.shape, generator=generator) < ignored, K)


def model_of(head: dict = FCN, **kwargs: Any) -> nn.Module:
    loss = dict(type='PixelContrastLoss', max_views=4) | kwargs.pop('loss', {})
    wrapper = dict(type='PixelContrastHead', head=head, num_classes=K, proj_channels=D)
    return build(
        dict(
            type='WindowedEncoderDecoder',
            backbone=dict(type='HRNetExact', extra=small_hrnet()),
            decode_head=dict(wrapper, loss_contrast=loss) | kwargs,
            test_cfg=dict(mode='whole'),
        )
    )


# Sampling


@pytest.mark.parametrize(('max_samples', 'max_views'), [(60, 5), (64, 4), (40, 7), (6, 3), (30, 2)])
def test_views_of_every_class_of_an_image_are_as_many_as_the_loop_says(
    max_samples: int, max_views: int
) -> None:
    for seed in range(4):
        label = labels(seed, ignored=0.3)
        generator = torch.Generator().manual_seed(seed)
        wrong = torch.rand(label.shape, generator=generator) < (0.1, 0.5, 0.9, 1.0)[seed]
        prediction = torch.where(wrong, (label + 1) % K, label.clamp(max=K - 1))
        drawn = sample_anchors(label, prediction, K, max_samples, max_views)
        places = drawn.pixel_index[drawn.valid].tolist()
        assert len(set(places)) == len(places)
        assert drawn.classes[drawn.valid].tolist() == label.flatten()[places].tolist()
        hard = (label != prediction).flatten()
        found: dict = {}
        for place in places:
            group = place // label[0].numel(), int(label.flatten()[place])
            found.setdefault(group, [0, 0])[int(hard[place])] += 1
        expected = groups_of(label, prediction, K, max_samples, max_views)
        if max_samples // len(expected) == 1 or max_samples < len(expected):
            assert {group: 1 for group in expected} == {g: sum(n) for g, n in found.items()}
        else:
            assert {g: list(n) for g, n in expected.items()} == found


def test_more_classes_than_samples_give_one_view_each_of_the_first() -> None:
    label = labels(ignored=0.0)
    drawn = sample_anchors(label, label, K, 4, 2)
    assert drawn.valid.all() and drawn.classes.tolist() == [0, 1, 2, 3]


def test_a_class_with_just_max_views_pixels_does_not_count() -> None:
    label = torch.full((1, 4, 4), K)
    label[0, 0] = 2
    assert not sample_anchors(label, label, K, 64, 4).valid.any()
    assert sample_anchors(label, label, K, 64, 3).valid.sum() == 3


def test_views_of_the_whole_batch_are_those_of_its_images_side_by_side() -> None:
    label = labels(ignored=0.3)
    prediction = torch.where(torch.rand(label.shape) < 0.5, (label + 1) % K, label.clamp(max=K - 1))
    loss = PixelContrastLoss(max_samples=64, max_views=10, per_image=False)
    drawn = loss.sample(label, prediction, K)
    places = drawn.pixel_index[drawn.valid]
    assert drawn.classes[drawn.valid].tolist() == label.flatten()[places].tolist()
    hard = (label != prediction).flatten()[places]
    for c in range(K):
        of_class = drawn.classes[drawn.valid] == c
        assert of_class.sum() == 10 and hard[of_class].sum() == 5
        assert len(set((places[of_class] // label[0].numel()).tolist())) > 1


def test_every_pixel_of_a_class_is_drawn_equally_often() -> None:
    label = torch.zeros(1, 4, 5, dtype=torch.long)
    torch.manual_seed(0)
    seen = Counter[int]()
    for _ in range(600):
        seen.update(sample_anchors(label, label, K, 64, 5).pixel_index[:5].tolist())
    assert len(seen) == 20 and 100 < min(seen.values()) <= max(seen.values()) < 200


@pytest.mark.parametrize(('new', 'old'), [((5, 7), (18, 25)), ((4, 4), (16, 16)), ((9, 3), (9, 5))])
def test_labels_shrink_to_the_nearest_whole_place_below(new: tuple, old: tuple) -> None:
    label = torch.randint(0, K, (2, *old), dtype=torch.uint8)
    label[0, 0, 0], label[1, -1, 0] = IGNORE_INDEX, K
    small = labels_at(label, new, K, IGNORE_INDEX)
    for n, i, j in itertools.product(range(2), range(new[0]), range(new[1])):
        value = int(label[n, i * old[0] // new[0], j * old[1] // new[1]])
        assert small[n, i, j] == min(value, K)


# Loss


def test_contrast_within_a_batch_is_the_slow_formula() -> None:
    x, own, valid = anchors(0, 0, 0, 1, 1, 2, 2, 4)  # one class of a single anchor
    value = PixelContrastLoss(loss_weight=1.0)(x, own, valid)
    expected = infonce(x, own.tolist(), x, own.tolist(), skip_itself=True)
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(*(torch.autograd.grad(v, x) for v in (value, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('counts', [(6, 6, 6), (0, 3, 6), (1, 0, 0), (2, 0, 4), (9, 1, 1)], ids=str)
@pytest.mark.parametrize('queues', [('region', 'pixel'), ('region',), ('pixel',)], ids=str)
def test_contrast_with_a_bank_is_the_slow_formula(
    counts: tuple, queues: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, 'SIMILARITIES_AT_A_TIME', 80)  # two or four anchors
    x, own, valid = anchors(0, 0, 1, 2, 1, 2, 2)
    bank = filled_bank(*counts, queues=queues)
    value = PixelContrastLoss(loss_weight=1.0)(x, own, valid, bank)
    rows, row_classes = rows_of(bank)
    expected = infonce(x, own.tolist(), rows, row_classes)
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(*(torch.autograd.grad(v, x) for v in (value, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('semi_hard', [None, 0.4])
@pytest.mark.parametrize('with_bank', [False, True])
def test_gradients_are_those_of_the_values(semi_hard: float | None, with_bank: bool) -> None:
    if semi_hard and not with_bank:
        pytest.skip('semi-hard draws come from a bank')
    x, own, valid = anchors(0, 0, 1, 2, 1)
    loss = PixelContrastLoss(semi_hard=semi_hard, num_positives=3, num_negatives=4)
    bank = filled_bank(4, 6, 3) if with_bank else None

    def value(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return loss(x, own, valid, bank)

    assert torch.autograd.gradcheck(value, (x,))


def test_semi_hard_draws_are_the_nearest_negatives_and_the_farthest_positives() -> None:
    x, own, valid = anchors(0)
    bank = filled_bank(6, 6, 5, queues=('pixel',))
    rows, row_classes = rows_of(bank)
    similarity, row_classes = rows @ x[0], torch.tensor(row_classes)
    positive = similarity[row_classes == 0].min()
    negatives = similarity[row_classes != 0].sort(descending=True).values[:2]  # ceil(0.1 * 11)
    loss = PixelContrastLoss(semi_hard=0.1, num_negatives=1, loss_weight=0.07 / 0.1)
    values = {round(loss(x, own, valid, bank).item(), 6) for _ in range(40)}
    assert values == {round(F.softplus((n - positive) / 0.1).item(), 6) for n in negatives}


@pytest.mark.parametrize('counts', [(0, 0, 0), (6, 0, 0), (0, 6, 6), (1, 1, 0)], ids=str)
def test_semi_hard_draws_of_a_bank_with_gaps_are_finite(counts: tuple) -> None:
    x, own, valid = anchors(0, 1, 2)
    value = PixelContrastLoss(semi_hard=0.5)(x, own, valid, filled_bank(*counts))
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()
    assert (value > 0) == (sum(n > 0 for n in counts) > 1)


def test_order_rotation_and_names_of_classes_do_not_matter() -> None:
    x, own, valid = anchors(0, 0, 1, 1, 2, 2)
    loss = PixelContrastLoss()
    rotation = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64)).Q
    order, rename = torch.randperm(6), torch.tensor([4, 0, 3])
    for value in (
        loss(x[order], own[order], valid),
        loss(x @ rotation, own, valid),
        loss(x, rename[own], valid),
    ):
        torch.testing.assert_close(value, loss(x, own, valid))


def test_orthogonal_classes_have_the_value_of_the_closed_form() -> None:
    x = torch.eye(D, dtype=torch.float64)[:3].repeat_interleave(4, 0)
    own = torch.arange(3).repeat_interleave(4)
    value = PixelContrastLoss(base_temperature=0.1, loss_weight=1.0)(x, own, own >= 0)
    torch.testing.assert_close(value, torch.tensor(8 * torch.e**-10).double().log1p())


def test_rows_that_are_not_valid_do_not_matter() -> None:
    x, own, valid = anchors(0, 0, 1, 1, 2, 2)
    valid[3:] = False
    for bank in (None, filled_bank(3, 3, 3)):
        other = x.detach().clone()
        other[3:] = 50
        value = PixelContrastLoss()(x, own, valid, bank)
        torch.testing.assert_close(PixelContrastLoss()(other, own, valid, bank), value)
        assert not torch.autograd.grad(value, x)[0][3:].any()


# Memory


def test_the_bank_is_what_queues_filled_image_by_image_hold() -> None:
    bank = MemoryBank(K, D, size=7, pixels_per_image=4).double()
    queues = [[Queue(7), Queue(7)] for _ in range(K)]
    for step in range(5):
        label = labels(step, ignored=0.4)
        label[label == 3] = 1 if step < 3 else 3  # a class seen late
        vectors = unit(3, K, seed=step)  # one for each image and class: the draw does not matter
        features = torch.stack(
            [F.pad(v, (0, 0, 0, 1), value=9.0)[own] for v, own in zip(vectors, label, strict=True)]
        )
        bank.update(label, features.movedim(3, 1), lambda rows: rows)
        for image, c in itertools.product(range(3), range(K)):
            for _ in range(min(int((label[image] == c).sum()), 4)):
                queues[c][1].add(vectors[image, c])
            if (label[image] == c).any():
                queues[c][0].add(vectors[image, c])
    for c, i in itertools.product(range(K), range(2)):
        queue = queues[c][i]
        assert int(bank.count[c, i]) == queue.count and int(bank.written[c, i]) % 7 == queue.pointer
        expected = torch.stack(queue.rows[: queue.count])
        torch.testing.assert_close(bank.vectors[c, i, : queue.count], expected)
    assert {int(n) for n in bank.written[:, 1]} & set(range(8, 100))  # it went round
    assert not bank.rows[-1].any()


def test_one_call_with_more_rows_than_the_bank_has_leaves_the_last_ones() -> None:
    bank = MemoryBank(2, D, size=2, pixels_per_image=5).double()
    vectors = unit(6)
    label = torch.zeros(6, 3, 3, dtype=torch.long)
    features = vectors[:, :, None, None].expand(-1, -1, 3, 3)
    bank.update(label, features, lambda rows: rows)
    torch.testing.assert_close(bank.vectors[0, 0], vectors[4:])  # a mean of each of the last images
    torch.testing.assert_close(bank.vectors[0, 1], vectors[[5, 5]])
    assert bank.written.tolist() == [[6, 30], [0, 0]]


SIZES = dict(region=3, pixel=11)


def fill_step_by_step(steps: int, size: Any, seed: int = 0, **kwargs: Any) -> MemoryBank:
    """A bank that saw so many batches; each image has one vector for a class."""
    bank = MemoryBank(K, D, size=size, pixels_per_image=4, **kwargs).double()
    for step in range(steps):
        label = labels(step + seed, ignored=0.4)
        vectors = F.pad(unit(3, K, seed=step + seed), (0, 0, 0, 1), value=9.0)
        features = torch.stack([v[c] for v, c in zip(vectors, label, strict=True)])
        bank.update(label, features.movedim(3, 1), lambda rows: rows)
    return bank


def test_each_queue_may_have_its_size() -> None:
    bank = fill_step_by_step(5, SIZES)
    queues = bank.rows[:-1].view(K, 14, D).split([3, 11], dim=1)
    counts, filled = bank.count, bank.filled.split([3, 11], dim=1)
    for i, (name, size) in enumerate(SIZES.items()):
        alone = fill_step_by_step(5, size, queues=(name,))
        torch.testing.assert_close(queues[i], alone.vectors[:, 0])
        assert torch.equal(filled[i], alone.filled)
        assert torch.equal(counts[:, i], alone.count[:, 0])
    assert counts.tolist() == [[3, 11]] * K
    x, own, valid = anchors(0, 0, 1, 2, 1, 2, 2)
    rows = bank.rows[:-1].view(K, 14, D)[bank.filled]
    expected = infonce(x, own.tolist(), rows, bank.filled.nonzero()[:, 0].tolist())
    torch.testing.assert_close(PixelContrastLoss(loss_weight=1.0)(x, own, valid, bank), expected)


@pytest.mark.parametrize('size', [2, 7, SIZES], ids=str)
def test_writes_are_undone_bit_for_bit(size: Any) -> None:
    bank = fill_step_by_step(3, size)
    bank.undo_writes()  # nothing was recorded
    for steps in (0, 1, 2):  # as many forward passes in a step
        before = copy.deepcopy(bank.state_dict())
        bank.record_writes()
        for step in range(steps):
            label = labels(step + 9)
            bank.update(label, unit(3, 12, 10, seed=step + 9).movedim(3, 1), lambda rows: rows)
            assert not torch.equal(bank.rows, before['rows'])
        bank.undo_writes()
        after = bank.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_training_copies_no_bank() -> None:
    model = model_of(memory=dict(size=9)).train()
    bank = model.decode_head.bank
    buffers = Buffers(model)
    copies = {tuple(x.shape) for _, group in buffers.pairs for x in group}
    assert buffers.undoing == [bank] and copies and tuple(bank.rows.shape) not in copies
    total_loss(model, make_batch(model))
    before = copy.deepcopy(model.state_dict())
    buffers.remember()
    total_loss(model, make_batch(model))
    assert any(not torch.equal(x, before[name]) for name, x in model.state_dict().items())
    buffers.restore()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize(
    ('size', 'mebibytes'), [(5000, 186), (dict(region=2975, pixel=29750), 607)], ids=str
)
def test_the_page_says_how_much_memory_a_bank_takes(size: Any, mebibytes: int) -> None:
    with torch.device('meta'):
        bank = MemoryBank(19, 256, size=size)
    assert round(sum(x.nbytes for x in bank.buffers()) / 2**20) == mebibytes
    page = (CONFIG_DIR / 'pixel_contrast/README.md').read_text()
    assert f'{mebibytes} MiB' in page


def test_ignored_pixels_never_enter_the_bank() -> None:
    bank = MemoryBank(K, D)
    bank.update(torch.full((2, 4, 4), K), torch.randn(2, D, 4, 4), lambda rows: rows)
    assert not bank.written.any() and not bank.rows.any()
    label = torch.full((1, 4, 4), K)
    label[0, 0] = 1
    features = torch.zeros(1, D, 4, 4)
    features[:, 0, 0], features[:, 1, 1:] = 1, 1
    bank.update(label, features, lambda rows: rows)
    assert bank.written.tolist() == [[0, 0], [1, 4], *[[0, 0]] * 3]
    assert (bank.vectors[1].flatten(0, 1)[bank.filled[1]] == torch.eye(D)[0]).all()


@pytest.mark.parametrize('value', [torch.inf, -torch.inf, torch.nan])
def test_features_that_are_not_finite_never_enter_the_bank(value: float) -> None:
    bank = MemoryBank(2, D, size=9, pixels_per_image=4)
    project = nn.Linear(3, D)

    def embed(x: Tensor) -> Tensor:
        return F.normalize(project(x), dim=-1)

    features = torch.randn(2, 3, 4, 4)
    label = torch.zeros(2, 4, 4, dtype=torch.long)
    label[:, 2:] = 1
    features[0, 1, 0, 0] = value  # one of eight pixels of class 0
    features[1, :, 2:] = value  # all of class 1
    bank.update(label, features, embed)
    assert bank.count.tolist() in ([[2, 8], [1, 4]], [[2, 7], [1, 4]])
    assert bank.rows.isfinite().all()
    lengths = bank.vectors.norm(dim=3).flatten(1)
    torch.testing.assert_close(lengths, bank.filled.float())
    bank.update(label, torch.full_like(features, value), embed)
    assert bank.count[:, 0].tolist() == [2, 1]
    region = class_means(label, features[:1], embed, 2)[0, 0]
    clean = embed(features[0].flatten(1).mT)[1:8].mean(0)
    torch.testing.assert_close(region, F.normalize(clean, dim=0))


def test_vectors_of_the_bank_have_unit_length_and_their_own_dtype() -> None:
    model = model_of(memory=dict(size=9)).train()
    with torch.autocast('cpu', torch.bfloat16):
        total_loss(model, make_batch(model))
    bank = model.decode_head.bank
    assert bank.rows.dtype == torch.float32
    norms = bank.vectors.norm(dim=3).flatten(1)[bank.filled]
    torch.testing.assert_close(norms, torch.ones_like(norms))


# What the released code gets wrong (tfzhou/ContrastiveSeg, numbers of its issues)


def put(bank: MemoryBank, counts: dict[int, int], width: int = 12) -> Tensor:
    """An image with so many pixels of some classes; returns its unit vectors (D, 1, w)."""
    label = torch.full((1, 1, width), bank.num_classes)
    places = iter(torch.randperm(width).tolist())
    for c, number in counts.items():
        for _ in range(number):
            label[0, 0, next(places)] = c
    features = F.normalize(torch.randn(1, D, 1, width), dim=1)
    bank.update(label, features, lambda rows: rows)
    return features[0]


def test_the_pointer_moves_by_the_rows_that_were_written() -> None:
    """#18, #35, #47: it moved by one, and the next image overwrote nine of ten rows."""
    bank = MemoryBank(3, D, size=20, pixels_per_image=4)
    put(bank, {1: 6})
    before = bank.vectors[1, 1, :4].clone()
    put(bank, {1: 3})
    assert int(bank.written[1, 1]) == 7
    assert torch.equal(bank.vectors[1, 1, :4], before)


def test_the_end_of_a_queue_goes_on_at_its_start() -> None:
    """#31: the newest rows took the last places and the pointer went to 0."""
    bank = MemoryBank(3, D, size=5, pixels_per_image=4)
    put(bank, {1: 4})
    before = bank.vectors[1, 1].clone()
    put(bank, {1: 3})  # places 4, 0 and 1
    changed = (bank.vectors[1, 1] != before).any(1)
    assert changed.tolist() == [True, True, False, False, True]
    assert int(bank.written[1, 1]) % 5 == 2


def test_rows_are_pixels_of_their_own_class() -> None:
    """#65: they were pixels of the first rows of the image, whatever their class."""
    torch.manual_seed(0)
    bank = MemoryBank(K, K)
    label = labels(size=(20, 20))
    features = F.one_hot(label, K + 1)[..., :K].movedim(3, 1).float()
    bank.update(label, features, lambda rows: rows)
    for c in range(K):
        rows = bank.vectors[c].flatten(0, 1)[bank.filled[c]]
        assert len(rows) == 33 and (rows.argmax(1) == c).all()


def test_the_drawn_rows_are_other_pixels() -> None:
    bank = MemoryBank(1, D, pixels_per_image=10)
    features = put(bank, {0: 11})
    found = (bank.vectors[0, 1, :10, None] == features[:, 0].T).all(2).nonzero()[:, 1]
    assert len(set(found.tolist())) == 10


@pytest.mark.parametrize('semi_hard', [None, 0.5])
def test_class_0_is_as_any_other(semi_hard: float | None) -> None:
    """#35, #60, #66: it had no queue, and zeros took its place."""
    x, own, valid = anchors(0, 0, 1, 1, 2)
    swap = torch.tensor([1, 0, 2])
    bank = filled_bank(4, 5, 2)
    other = copy.deepcopy(bank)
    other.vectors.copy_(bank.vectors[swap])
    other.written.copy_(bank.written[swap])
    values = []
    for own_now, bank_now in ((own, bank), (swap[own], other)):
        torch.manual_seed(0)
        loss = PixelContrastLoss(semi_hard=semi_hard)
        values.append(loss(x, own_now, valid, bank_now))
    torch.testing.assert_close(*values)
    label = labels()
    banks = [MemoryBank(K, D), MemoryBank(K, D)]
    for bank, label_now in zip(
        banks, (label, torch.tensor([1, 0, 2, 3, 4, 5])[label]), strict=True
    ):
        torch.manual_seed(0)
        bank.update(label_now, unit(3, 12, 10, dtype=torch.float32).movedim(3, 1), lambda r: r)
    assert torch.equal(banks[0].written[0], banks[1].written[1])
    torch.testing.assert_close(banks[0].vectors[0, 0], banks[1].vectors[1, 0])


def test_no_row_of_the_bank_is_taken_for_the_anchor_itself() -> None:
    """#16: row i was masked for anchor i, an index error with more anchors than rows."""
    x, own, valid = anchors(*[0, 1] * 8)
    bank = filled_bank(1, 1, size=1)
    value = PixelContrastLoss(loss_weight=1.0)(x, own, valid, bank)
    torch.testing.assert_close(value, infonce(x, own.tolist(), *rows_of(bank)))


def test_places_that_nothing_was_written_to_do_not_matter() -> None:
    """Random rows were used as samples until a class had filled its queue."""
    x, own, valid = anchors(0, 1, 2)
    bank = filled_bank(4, 1, 0)
    value = PixelContrastLoss()(x, own, valid, bank)
    grad = torch.autograd.grad(value, x)[0]
    bank.vectors[~bank.filled.view(3, 2, 6)] = -7.0
    again = PixelContrastLoss()(x, own, valid, bank)
    assert value == again and torch.equal(grad, torch.autograd.grad(again, x)[0])
    assert not grad[2].any()  # its class was never seen


@pytest.mark.parametrize('size', [(64, 96), (65, 97), (50, 90)], ids=str)
def test_the_bank_gets_labels_of_the_size_of_the_features(
    size: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels for a stride of 8 addressed the first quarter of HRNet's features."""
    model, seen = model_of(memory=dict(size=9)).train(), []
    monkeypatch.setattr(MemoryBank, 'update', lambda bank, *args: seen.append(args[:2]))
    images, samples = make_batch(model, size=size)
    total_loss(model, (images, samples))
    label, features = seen[0]
    h, w = features.shape[2:]
    assert label.shape == (2, h, w) and h * 4 >= size[0]
    full = torch.cat([sample.gt_sem_seg.data for sample in samples])
    assert torch.equal(
        label[:, h - 1, w - 1], full[:, (h - 1) * size[0] // h, (w - 1) * size[1] // w]
    )


def test_two_processes_hold_the_same_bank_of_what_both_saw(tmp_path: Path) -> None:
    """Only the first process's images ever entered it."""
    first, second = contrast_processes.run_two(contrast_processes.fill_bank, tmp_path)
    assert first.keys() == {'rows', 'written'}
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = MemoryBank(3, 5, size=7, pixels_per_image=2)
    for step in range(3):
        both = (contrast_processes.labels_and_features(rank, step) for rank in (0, 1))
        label, features = (torch.cat(x) for x in zip(*both, strict=True))
        alone.update(label, features, lambda rows: rows)
    torch.testing.assert_close(first, dict(alone.state_dict()))


def test_processes_with_other_batches_stay_alike(tmp_path: Path) -> None:
    worker = contrast_processes.train_on_other_batches
    first, second = contrast_processes.run_two(worker, tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(value.isfinite().all() for value in first.values())


def test_one_process_learns_contrast_too() -> None:
    """#54: outside of distributed training it was multiplied by 0."""
    model = model_of().train()
    images, samples = make_batch(model)
    losses = model.loss(images, samples)
    losses['decode.loss_contrast'].backward()
    assert losses['decode.loss_contrast'] > 0.1
    assert model.backbone.conv1.weight.grad.any()


def test_a_single_view_is_hard_half_of_the_time() -> None:
    """With one view of a class the released split never took a hard one."""
    label = torch.zeros(1, 4, 5, dtype=torch.long)
    prediction = label.clone()
    prediction[0, 0] = 1
    torch.manual_seed(0)
    hard = sum(
        int(sample_anchors(label, prediction, K, 8, 1).pixel_index[0] < 5) for _ in range(400)
    )
    assert 160 < hard < 240
    for one_sided, places in ((label, range(20)), (label + 1, range(20))):
        assert int(sample_anchors(label, one_sided, K, 8, 1).pixel_index[0]) in places


@pytest.mark.parametrize('with_bank', [False, True])
@pytest.mark.parametrize('classes', [(), (0,), (0, 1, 2), (1, 1, 1)], ids=str)
def test_nothing_to_learn_is_0_and_connected(classes: tuple, with_bank: bool) -> None:
    """#68: no group, or a group without a positive, crashed or gave NaN."""
    x, own, valid = anchors(*classes, 0, 0)
    valid[len(classes) :] = False
    bank = filled_bank(0, 0, 0) if with_bank else None
    value = PixelContrastLoss()(x, own, valid, bank)
    value.backward()
    assert value == 0 and not x.grad.any()


@pytest.mark.parametrize('with_bank', [False, True])
def test_half_precision_and_long_vectors_are_finite(with_bank: bool) -> None:
    bank = filled_bank(3, 3).float() if with_bank else None
    own = torch.tensor([0, 0, 1, 1])
    valid = torch.ones_like(own, dtype=torch.bool)
    for x in (unit(4).half(), unit(4).bfloat16(), 30 * unit(4, dtype=torch.float32)):
        x = x.requires_grad_()
        with torch.autocast('cpu', torch.bfloat16):
            value = PixelContrastLoss()(x, own, valid, bank)
        value.backward()
        assert value.dtype == torch.float32 and value.isfinite() and x.grad.isfinite().all()
        exact = PixelContrastLoss()(x.detach().double(), own, valid, bank)
        torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)


def test_contrast_stands_beside_an_auxiliary_head() -> None:
    """The released criterion for it looked for a key that the network never wrote."""
    model = model_of()
    model.auxiliary_head = MODELS.build(dict(FCN, num_classes=K))
    assert set(model.loss(*make_batch(model))) == {
        *('decode.loss_ce', 'decode.acc_seg', 'decode.loss_contrast'),
        *('aux.loss_ce', 'aux.acc_seg'),
    }


def test_the_base_temperature_is_a_factor() -> None:
    x, own, valid = anchors(0, 0, 1, 1)
    value = PixelContrastLoss(base_temperature=0.1)(x, own, valid)
    twice = PixelContrastLoss(base_temperature=0.05)(x, own, valid)
    weighted = PixelContrastLoss(base_temperature=0.1, loss_weight=0.2)(x, own, valid)
    torch.testing.assert_close(2 * value, twice)
    torch.testing.assert_close(twice, weighted)


# A training step


class NoWaiting(TorchDispatchMode):
    """Fails where a value is asked of the device, or a shape depends on values."""

    WAITS = ('_local_scalar_dense', 'nonzero', 'masked_select', 'unique', 'bincount', 'equal')

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not func.__name__.startswith(self.WAITS), func
        if func.__name__.startswith('index'):
            picks = args[1] if isinstance(args[1], list | tuple) else []
            assert not any(p is not None and p.dtype == torch.bool for p in picks), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('semi_hard', [None, 0.1])
@pytest.mark.parametrize('memory', [None, dict(size=9)], ids=['alone', 'memory'])
def test_no_step_waits_for_the_device(memory: dict | None, semi_hard: float | None) -> None:
    if memory is None and semi_hard:
        pytest.skip('semi-hard draws come from a bank')
    model = model_of(memory=memory, loss=dict(semi_hard=semi_hard)).train()
    head, (images, samples) = model.decode_head, make_batch(model)
    levels, logits = model.backbone(images), torch.randn(2, K, 17, 25)
    label = torch.cat([sample.gt_sem_seg.data for sample in samples])
    with NoWaiting():
        head._contrast(levels, logits, label).backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_no_step_waits_for_a_gpu() -> None:
    model = model_of(memory=dict(size=9)).train().cuda()
    images, samples = make_batch(model)
    levels = model.backbone(images.cuda())
    logits, label = torch.randn(2, K, 17, 25).cuda(), samples[0].gt_sem_seg.data.repeat(2, 1, 1)
    label = label.cuda()
    torch.cuda.set_sync_debug_mode('error')
    try:
        model.decode_head._contrast(levels, logits, label).backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.fixture
def iteration() -> Iterator[MessageHub]:
    """The message hub of a training of its own."""
    hub = MessageHub.get_instance('test_pixel_contrast')
    yield hub
    MessageHub._instance_dict.pop('test_pixel_contrast')


def test_warm_up_leaves_the_loss_out_and_fills_the_bank(iteration: MessageHub) -> None:
    model = model_of(memory=dict(size=9), loss=dict(warmup_iters=3)).train()
    batch = make_batch(model)
    for step in range(5):
        iteration.update_info('iter', step)
        model.zero_grad()
        loss = model.loss(*batch)['decode.loss_contrast']
        loss.backward()
        grads = [p.grad for p in model.decode_head.projection.parameters()]
        assert all(g is not None for g in grads)  # what DDP asks for
        assert (loss > 0) == (step >= 3) == any(g.any() for g in grads)
        assert model.backbone.conv1.weight.grad is None or step >= 3
    assert model.decode_head.bank.written.any()
    assert model.decode_head.projection.norm.num_batches_tracked == 5


def test_a_training_that_ends_in_the_warm_up_warns_once(iteration: MessageHub) -> None:
    for end, count in ((3, 1), (4, 0)):
        iteration.update_info('iter', 0)
        iteration.update_info('max_iters', end)
        model = model_of(loss=dict(warmup_iters=3)).train()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            for _ in range(2):
                model.loss(*make_batch(model))
        sentences = [str(w.message) for w in caught if 'warm-up of the contrast' in str(w.message)]
        assert len(sentences) == count


def test_the_bank_takes_in_a_batch_after_its_loss_and_only_in_training() -> None:
    model = model_of(memory=dict(size=9)).train()
    batch = make_batch(model)
    assert model.loss(*batch)['decode.loss_contrast'] == 0  # it was empty
    bank = copy.deepcopy(model.decode_head.bank)
    assert bank.written.any()
    with torch.no_grad():
        assert model.eval().loss(*batch)['decode.loss_contrast'] > 0
    assert torch.equal(bank.rows, model.decode_head.bank.rows)


def test_two_classes_in_one_channel_of_logits() -> None:
    head = dict(
        FCN,
        out_channels=1,
        threshold=0.5,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )
    model = model_of(head, num_classes=2, memory=dict(size=9)).train()
    total_loss(model, make_batch(model))
    loss = total_loss(model, make_batch(model))
    loss.backward()
    assert loss.isfinite() and model.decode_head.projection.last.weight.grad.any()


@pytest.mark.parametrize('index', [0, [0, 3]], ids=str)
def test_the_projection_reads_the_levels_that_it_is_given(index: Any) -> None:
    model = model_of(proj_index=index).train()
    width = {0: 4}.get(index, 36) if isinstance(index, int) else 36
    assert model.decode_head.projection.conv.in_channels == width
    assert total_loss(model, make_batch(model)).isfinite()


@torch.no_grad()
def test_the_projection_is_that_of_resized_concatenated_levels() -> None:
    model = model_of().eval()
    head, levels = model.decode_head, model.backbone(torch.randn(2, 3, 50, 90))
    size = levels[0].shape[2:]
    joined = torch.cat([F.interpolate(x, size, mode='bilinear') for x in levels], 1)
    p = head.projection
    expected = F.normalize(
        F.conv2d(p.norm(p.conv(joined)).relu(), p.last.weight[..., None, None], p.last.bias)
    )
    torch.testing.assert_close(head.embed(levels), expected, rtol=1e-4, atol=1e-6)
    places = torch.tensor([0, size[0] * size[1], 7])
    rows = p.unit(pixels_at(head._features(levels), places))
    torch.testing.assert_close(rows, pixels_at(expected, places), rtol=1e-4, atol=1e-6)


# The model


@torch.no_grad()
@pytest.mark.parametrize('head', [FCN, OCR], ids=lambda head: head['type'])
def test_it_predicts_as_the_plain_head_and_takes_its_names(head: dict) -> None:
    model = model_of(head, memory=dict(size=9)).train()
    total_loss(model, make_batch(model))
    plain = build(
        dict(
            type='EncoderDecoder',
            backbone=dict(type='HRNetExact', extra=small_hrnet()),
            decode_head=dict(head, num_classes=K),
            test_cfg=dict(mode='whole'),
        )
    )
    published = convert('plain', model.state_dict())
    plain.load_state_dict(published)
    assert not any('projection' in name or 'bank' in name for name in published)
    image = torch.randn(1, 3, 65, 97)
    assert torch.equal(plain.eval()(image), model.eval()(image))
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all('projection' in n or 'bank' in n for n in missing)


@pytest.mark.parametrize('head', HEADS)
def test_it_wraps_every_head(head: str, tmp_path: Path) -> None:
    line, keys = HEADS[head]
    wrapped = f"dict(decode_head=dict(type='PixelContrastHead', memory=dict(size=9), head={line},"
    wrapped += " loss_contrast=dict(type='PixelContrastLoss')))"
    base = next(path for path in BASES if path.stem == 'hrnet18s')
    model = build(shrunk(base, wrapped, tmp_path))
    trains_predicts_and_explains(model, keys | {'loss_contrast'})


@pytest.mark.parametrize('base', BASES, ids=lambda path: path.stem)
def test_it_stands_on_every_base(base: Path, tmp_path: Path) -> None:
    line, keys = HEADS['FCNHead']
    wrapped = f"dict(decode_head=dict(type='PixelContrastHead', head={line}))"
    model = build(shrunk(base, wrapped, tmp_path))
    trains_predicts_and_explains(model, keys | {'loss_contrast'})


@torch.no_grad()
def test_explain_shows_how_near_the_other_vectors_are() -> None:
    model = model_of().eval()
    image = torch.randn(2, 3, 65, 97)
    own = model.explain(image)['similarity']
    assert own.shape == (2, 1, 17, 25) and own.abs().max() <= 1.0001
    of_pixel = model.explain(image, pixel=(96, 64))['similarity']
    torch.testing.assert_close(of_pixel[..., -1, -1], torch.ones(2, 1))
    vectors = model.decode_head.embed(model.backbone(image))
    expected = (vectors[1, :, -1, -1] * vectors[1, :, 3, 5]).sum()
    torch.testing.assert_close(of_pixel[1, 0, 3, 5], expected)


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(loss=dict(semi_hard=0.1)), 'set memory=dict'),
        (dict(loss=dict(semi_hard=2.0)), r'give a fraction in \(0, 1\]'),
        (dict(loss=dict(max_views=0)), 'max_views=0: it must be above 0'),
        (dict(memory=dict(size=0)), 'size=0 and pixels_per_image=10: both must be at least 1'),
        (dict(memory=dict(queues=('regions',))), "choose \\('region',\\)"),
        (
            dict(memory=dict(size=dict(pixel=9))),
            "of \\['pixel'\\]: give a size for each queue",
        ),
        (dict(proj_index=4), r'proj_index=4 is not among the levels \[0, 1, 2, 3\]'),
        (dict(head=dict(type='HMSAHead', head=FCN)), 'cannot wrap HMSAHead, itself a wrapper'),
        (dict(head=dict(type='PixelContrastHead', head=FCN)), 'itself a wrapper'),
        (dict(head=[FCN, FCN]), 'wraps one head, got a cascade of 2'),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_with_a_sentence(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        model_of(**changes)


@pytest.mark.parametrize('inside', [False, True])
def test_it_is_refused_in_hmsa(inside: bool) -> None:
    head = dict(type='PixelContrastHead', head=FCN, num_classes=K)
    if inside:
        head = dict(type='HMSAHead', head=head)
    backbone = dict(type='HRNetExact', extra=small_hrnet())
    with pytest.raises(ValueError, match='itself a wrapper|needs one head that predicts scale'):
        MODELS.build(dict(type='HMSA', backbone=backbone, decode_head=head))


# Released weights

NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def released(*layers: str) -> dict[str, Tensor]:
    """Weights by name of convolutions, and of norms where a name ends in .0 after a number."""
    names = []
    for layer in layers:
        norm = layer.endswith('.0') and layer.split('.')[-2].isdigit()
        names += [f'{layer}.{kind}' for kind in (NORM if norm else NORM[:2])]
    convs = {f'{layer}.weight' for layer in layers if f'{layer}.running_mean' not in names}
    return {name: torch.randn(4, 4, 1, 1) if name in convs else torch.randn(4) for name in names}


OCR_BLOCK = 'ocr_distri_head.object_context_block'
OCR_LAYERS = [
    *('conv3x3.0', 'conv3x3.1.0', 'cls_head', 'aux_head.0', 'aux_head.1.0', 'aux_head.2'),
    *(f'{OCR_BLOCK}.{f}.{i}' for f in ('f_pixel', 'f_object') for i in ('0', '1.0', '2', '3.0')),
    *(f'{OCR_BLOCK}.{f}.{i}' for f in ('f_down', 'f_up') for i in ('0', '1.0')),
    *('ocr_distri_head.conv_bn_dropout.0', 'ocr_distri_head.conv_bn_dropout.1.0'),
]
PROJECTION = ['proj_head.proj.0', 'proj_head.proj.1.0', 'proj_head.proj.2']


def test_the_released_ocrnet_has_a_place_for_every_weight() -> None:
    model = model_of(dict(OCR, type='OpensegOCRHead'))
    weights = released(*OCR_LAYERS, *PROJECTION)
    ours = convert('pixel_contrast', weights)
    assert set(ours) == {n for n in model.state_dict() if n.startswith('decode_head.')}
    folded = ours['decode_head.head.object_context_block.query_project.1.bn.running_mean']
    mean, bias = (weights[f'{OCR_BLOCK}.f_pixel.{n}'] for n in ('3.0.running_mean', '2.bias'))
    assert torch.equal(folded, mean - bias)


def test_the_memory_model_leaves_its_queues_behind() -> None:
    weights = released('cls_head.0', 'cls_head.1.0', *PROJECTION)
    weights['cls_head.3.weight'] = torch.randn(K, 4, 1, 1)
    queues = {
        f'{kind}_queue{end}': torch.randn(K)
        for kind in ('segment', 'pixel')
        for end in ('', '_ptr')
    }
    of_memory = {f'module.encoder_q.{n}': t for n, t in weights.items()}
    ours = convert('pixel_contrast', of_memory | {f'module.{n}': t for n, t in queues.items()})
    plain = convert('pixel_contrast', weights)
    assert ours.keys() == plain.keys() and all(torch.equal(ours[n], plain[n]) for n in ours)
    without = convert('pixel_contrast', {n: t for n, t in weights.items() if 'proj' not in n})
    wrapped = {n for n in plain if 'projection' not in n}
    assert set(without) == {n.replace('decode_head.head', 'decode_head') for n in wrapped}


def test_biases_without_their_norm_and_other_names_are_refused() -> None:
    weights = released('cls_head.0', 'cls_head.1.0')
    with pytest.raises(ValueError, match='give the whole checkpoint'):
        convert('pixel_contrast', {'cls_head.0.bias': weights['cls_head.0.bias']})
    with pytest.raises(ValueError, match='belong to another model: backbond'):
        convert('pixel_contrast', weights | {'backbond.conv1.weight': torch.zeros(1)})


# Stopped runs


def contrast_run(data: Path, work_dir: Path, **changes: Any) -> Any:
    cfg = config(data, work_dir, **changes)
    cfg.train_cfg.max_epochs = 2
    head = cfg.model.decode_head.to_dict()
    shared = {name: head.pop(name) for name in ('in_channels', 'in_index', 'num_classes')}
    cfg.model.decode_head = dict(
        type='PixelContrastHead',
        head=head,
        proj_channels=4,
        memory=dict(size=20, pixels_per_image=3),
        loss_contrast=dict(type='PixelContrastLoss', max_views=2, warmup_iters=3),
        **shared,
    )
    return cfg


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.engine.tiny_run import write_images

    return write_images(tmp_path_factory.mktemp('contrast') / 'data')


@pytest.mark.parametrize('processes', [1, 2])
def test_a_killed_run_goes_on_with_the_same_bank(
    processes: int, data: Path, tmp_path: Path
) -> None:
    whole = contrast_run(data, tmp_path / 'whole')
    cut = contrast_run(data, tmp_path / 'cut', stop={5: 'kill'})
    assert train(whole, processes=processes) == [(0, '')] * processes
    assert train(cut, processes=processes) == [(KILLED, '')] * processes
    assert train(resumed(cut), processes=processes) == [(0, '')] * processes
    ends = [last_checkpoint(tmp_path / name) for name in ('cut', 'whole')]
    assert_same(*ends)
    written = ends[0]['state_dict']['decode_head.bank.written']
    assert written[:, 0].max() == 20  # two epochs of the ten images, of all processes


@pytest.mark.parametrize('processes', [1, 2])
def test_a_step_that_fails_leaves_the_bank_as_it_was(
    processes: int, data: Path, tmp_path: Path
) -> None:
    whole = contrast_run(data, tmp_path / 'whole')
    cut = contrast_run(data, tmp_path / 'cut', stop={5: 'backward'})
    cut.default_hooks.checkpoint.interval = 100
    assert train(whole, processes=processes) == [(0, '')] * processes
    errors = [text for _, text in train(cut, processes=processes)]
    assert errors == ['RuntimeError: no memory'] * processes
    assert last_checkpoint(tmp_path / 'cut')['meta']['iter'] == 4
    assert train(resumed(cut), processes=processes) == [(0, '')] * processes
    assert_same(*(last_checkpoint(tmp_path / name) for name in ('cut', 'whole')))


@pytest.mark.parametrize('name', ['hrnet', 'hrnet_ocr', 'r101_deeplabv3'])
def test_cityscapes_has_the_released_augmentation(name: str) -> None:
    for end in ('', '_memory', '_memory_paper'):
        path = CONFIG_DIR / 'pixel_contrast' / f'{name}_cityscapes{end}.py'
        pipeline = prepare.load_config(str(path)).train_dataloader.dataset.pipeline
        kinds = [transform.type for transform in pipeline[2:-1]]
        assert kinds == ['RandomScaleCrop', 'RandomFlip', 'ShiftBrightness']
        assert (pipeline[2].ratio_range, pipeline[2].aspect_range) == ((0.5, 2.0), (0.9, 1.1))
        assert pipeline[4].delta == 10
