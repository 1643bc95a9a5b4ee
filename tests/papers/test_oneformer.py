"""OneFormer: every fast form against its slow formula, targets, tasks, results, training."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_ext.datasets.panoptic.ade20k import ADE20KPanopticDataset
from mmseg_ext.errors import UserError
from mmseg_ext.papers.oneformer.attention import Attention, sine_map
from mmseg_ext.papers.oneformer.contrast import ContrastiveLoss
from mmseg_ext.papers.oneformer.criterion import Criterion, ImageTargets, dice
from mmseg_ext.papers.oneformer.decoder import Prediction, QueryLayer, attention_region
from mmseg_ext.papers.oneformer.deformable import DeformableAttention, sample_levels
from mmseg_ext.papers.oneformer.inference import (
    Settings,
    instances,
    panoptic_segments,
    semantic_scores,
)
from mmseg_ext.papers.oneformer.matching import WEIGHTS, assign, matching_cost, sample_masks
from mmseg_ext.papers.oneformer.targets import (
    OneFormerTargets,
    add_targets,
    panoptic_targets,
    semantic_targets,
)
from mmseg_ext.papers.oneformer.text import TextBatch, TextBranch, image_texts, padded_ids, task_ids
from tests.oracles import oneformer as oracles
from tests.papers.contrast_processes import run_two
from tests.tiny import CONFIG_DIR, build, make_batch, shrink, tiny, total_loss

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'OneFormerHead': dict(
        channels=32,
        num_queries=8,
        num_heads=4,
        pixel_layers=1,
        pixel_hidden=32,
        num_layers=3,
        hidden=32,
        num_context=2,
        text_width=64,
        text_layers=1,
        num_points=32,
    ),
    # a skipped block has no gradient
    'ConvNeXt': dict(
        depths=(1, 1, 1, 1), channels=(4, 8, 16, 32), layer_scale=0.1, drop_path_rate=0.0
    ),
    'SwinTransformer': dict(
        embed_dims=4,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
        window_size=4,
        drop_path_rate=0.0,
    ),
}
K = 19
THINGS = range(11, 19)


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    for ours, reference in zip(found, expected, strict=True):
        error = (ours - reference).abs().max() / reference.abs().max().clamp(min=1e-6)
        assert error <= tolerance


def both(form: Any, inputs: list[Tensor]) -> list[Tensor]:
    """The result of a form, and the gradients of its weighted sum."""
    result = form()
    weight = torch.linspace(-1, 1, result.numel()).view_as(result)
    return [result.detach(), *torch.autograd.grad((result * weight).sum(), inputs)]


@pytest.fixture(scope='module')
def model() -> nn.Module:
    init_default_scope('mmseg')
    return tiny(CONFIG_DIR / 'oneformer/r50_cityscapes.py')


# Parts of the network


def test_positions_are_those_of_the_formula() -> None:
    found = sine_map((3, 5), 12, torch.zeros(()))
    torch.testing.assert_close(found, oracles.sine_slow((3, 5), 12))


@pytest.mark.parametrize('dropout', [0.0, 0.5])
def test_attention_is_that_of_pytorch_and_drops_weights_in_training(dropout: float) -> None:
    attention = Attention(16, 4, dropout).eval()
    query, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    blocked = torch.rand(2, 5, 7) > 0.7
    blocked[..., 0] = False
    expected = oracles.attend_released(attention, query, memory, memory, blocked)
    torch.testing.assert_close(attention(query, memory, memory, ~blocked[:, None]), expected)
    results = [attention.train()(query, memory, memory) for _ in range(2)]
    assert torch.equal(*results) == (not dropout)


def test_attention_with_dropout_has_the_gradient_of_its_result() -> None:
    """It is computed again in the backward pass, with the same random numbers."""
    attention = Attention(8, 2, dropout=0.5).double().train()
    query = torch.randn(1, 3, 8, dtype=torch.double, requires_grad=True)
    memory = torch.randn(1, 4, 8, dtype=torch.double)

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return attention(x, memory, memory)

    assert torch.autograd.gradcheck(seeded, query)


def test_query_layer_is_the_released_form() -> None:
    layer, conv, size = QueryLayer(16, 32, 4, dropout=0.0), nn.Conv2d(16, 16, 1), (4, 6)
    x, position = torch.randn(2, 5, 16, requires_grad=True), torch.randn(5, 16)
    features = torch.randn(2, 24, 16, requires_grad=True)
    inputs = [x, features, conv.weight, layer.cross_attn.in_proj_weight]
    args = x, position, features, conv, size
    ours = both(lambda: layer(*args), inputs)
    close(ours, both(lambda: oracles.query_layer_released(layer, *args), inputs), 1e-4)


def test_regions_are_those_of_the_masks_and_no_query_sees_nothing() -> None:
    features = torch.randn(2, 6, 32, 48)
    embedding = torch.randn(2, 5, 6)
    features[:, 0] = 1
    embedding[0, 2] = torch.tensor([-9.0, 0, 0, 0, 0, 0])  # an empty mask
    for size in ((16, 24), (8, 12), (9, 13)):
        small = F.interpolate(features, size, mode='bilinear', align_corners=False)
        found = attention_region(embedding, small)
        expected = oracles.region_released(embedding, features, size)
        assert (found == expected).float().mean() > 0.999
        assert found[0, 2].all() and found.flatten(2).any(2).all()


def test_deformable_samples_are_the_stacked_form() -> None:
    sizes = [(2, 3), (4, 5)]
    values = torch.randn(2, 26, 2, 4, requires_grad=True)
    locations = (1.4 * torch.rand(2, 7, 2, 2, 3, 2) - 0.2).requires_grad_()
    weights = torch.rand(2, 7, 2, 2, 3, requires_grad=True)
    args, inputs = (values, locations, weights, sizes), [values, locations, weights]
    ours = both(lambda: sample_levels(*args), inputs)
    close(ours, both(lambda: oracles.sample_levels_released(*args), inputs))
    with torch.no_grad():
        torch.testing.assert_close(sample_levels(*args), ours[0])


def test_without_offsets_it_is_the_mean_of_the_values_at_the_reference() -> None:
    attention = DeformableAttention(8, num_heads=2, num_levels=2, num_points=3)
    nn.init.zeros_(attention.sampling_offsets.bias)
    for layer in (attention.value_proj, attention.output_proj):
        nn.init.eye_(layer.weight)
    coarse, fine = torch.randn(1, 8, 2, 2), torch.randn(1, 8, 4, 4)
    value = torch.cat([x.flatten(2).mT for x in (coarse, fine)], dim=1)
    reference = torch.tensor([[0.25, 0.25], [0.75, 0.25]])
    found = attention(torch.randn(1, 2, 8), value, reference, [(2, 2), (4, 4)])
    expected = (coarse[..., 0, :] + F.avg_pool2d(fine, 2)[..., 0, :]) / 2
    torch.testing.assert_close(found, expected.mT)


def test_the_task_changes_the_result_and_is_the_last_query(model: nn.Module) -> None:
    head, images = model.eval().decode_head, make_batch(model)[0]
    with torch.no_grad():
        levels = model.extract_feat(images)
        semantic, again, panoptic = (
            head.run(levels, [task] * 2) for task in ('semantic', 'semantic', 'panoptic')
        )
        token = head.mask_decoder.norm(head.task_tokens(task_ids(['panoptic'] * 2)))
    logits = [x.predictions[-1].logits for x in (semantic, again, panoptic)]
    assert torch.equal(logits[0], logits[1]) and not torch.allclose(logits[0], logits[2])
    assert torch.equal(panoptic.queries[:, -1], token)
    assert panoptic.queries.shape[1] == head.num_queries


def test_the_token_is_float32_under_autocast(model: nn.Module) -> None:
    """Ids reach 49407: bfloat16 would round them by 128."""
    ids = task_ids(['semantic'])
    expected = model.decode_head.task_tokens(ids)
    with torch.autocast('cpu', torch.bfloat16):
        found = model.decode_head.task_tokens(ids)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


# Texts


def test_texts_are_encoded_once_and_up_to_their_end_with_the_same_numbers() -> None:
    torch.manual_seed(0)
    branch = TextBranch(64, num_context=3, width=64, num_layers=2)
    for parameter in branch.encoder.layers.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    names = ['road', 'a longer name of a class', 'car']
    texts = [image_texts('panoptic', [1, 2, 2], names, 6), image_texts('instance', [0], names, 6)]
    batch = TextBatch.of(texts)
    assert len(batch.ids) == 5 and batch.ids.shape[1] == batch.ends.max() + 1 < 20
    inputs = list(branch.parameters())
    ours = both(lambda: branch(batch), inputs)
    close(ours, both(lambda: oracles.text_vectors_released(branch, texts), inputs), 1e-4)


def test_a_name_of_many_tokens_is_cut() -> None:
    (ids,) = padded_ids(['a photo with a ' + 'giraffe ' * 100])
    assert ids[0] == 49406 and ids[-1] == 49407 and (ids > 0).all()
    batch = TextBatch.of([['giraffe ' * 100, 'car']])
    assert batch.ids.shape[1] == 77 and batch.ends.tolist() == [76, 2]


def test_objects_beyond_the_texts_have_none() -> None:
    texts = image_texts('semantic', [3, 1, 1, 2], ['a', 'b', 'c', 'd'], 3)
    assert texts == ['a photo with a b', 'a photo with a b', 'a photo with a c']
    assert image_texts('instance', [], ['a'], 2) == ['an instance photo'] * 2


# Contrast


def test_contrast_of_one_image_is_zero_and_order_does_not_matter() -> None:
    loss, queries, texts = ContrastiveLoss(), torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    assert loss(queries[:1], texts[:1]) == 0
    order = [2, 0, 1]
    torch.testing.assert_close(loss(queries, texts), loss(queries[order], texts[order]))


def contrast_of_part(rank: int) -> dict[str, Tensor]:
    """Loss and gradients of two of four images."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 4, 3, 5, generator=generator)
    part = inputs[:, 2 * rank : 2 * rank + 2].clone().requires_grad_()
    loss = ContrastiveLoss()
    value = loss(*part)
    value.backward()
    return dict(loss=value.detach(), part=part.grad, scale=loss.logit_scale.grad)


def test_two_processes_have_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    first, second = run_two(contrast_of_part, tmp_path)
    inputs = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = ContrastiveLoss()
    value = loss(*inputs)
    value.backward()
    # DDP averages over processes
    torch.testing.assert_close((first['loss'] + second['loss']) / 2, value.detach())
    torch.testing.assert_close((first['scale'] + second['scale']) / 2, loss.logit_scale.grad)
    torch.testing.assert_close(torch.cat([first['part'], second['part']], 1) / 2, inputs.grad)


# Matching and losses


def test_values_of_masks_are_bilinear_and_zero_outside() -> None:
    masks, points = torch.rand(3, 5, 7) > 0.5, torch.rand(3, 20, 2)
    points[:, 0], points[:, 1] = 0.0, 1.0  # corners
    expected = [oracles.sample_slow(m.float(), p) for m, p in zip(masks, points, strict=True)]
    torch.testing.assert_close(sample_masks(masks, points), torch.stack(expected))
    shared = torch.stack([oracles.sample_slow(m.float(), points[0]) for m in masks])
    torch.testing.assert_close(sample_masks(masks, points[:1]), shared)


def test_cost_is_that_of_every_pair_and_survives_nan() -> None:
    logits, masks = torch.randn(6, 4), 3 * torch.randn(6, 30)
    labels, truth = torch.tensor([2, 0]), torch.rand(2, 30)
    cost = matching_cost(logits, masks, labels, truth, WEIGHTS)
    torch.testing.assert_close(cost, oracles.cost_slow(logits, masks, labels, truth, WEIGHTS))
    logits[3], masks[1, 0], masks[2, 0] = torch.nan, torch.inf, -torch.inf
    cost = matching_cost(logits, masks, labels, truth, WEIGHTS)
    assert (cost[3] == 100).all() and len(assign([cost])[0][0]) == 2


def test_more_objects_than_queries_and_none_at_all_are_matched() -> None:
    (queries, numbers), (none, nothing) = assign([torch.randn(3, 5), torch.randn(3, 0)])
    assert sorted(queries.tolist()) == [0, 1, 2] and len(set(numbers.tolist())) == 3
    assert len(none) == len(nothing) == 0


def criterion_with_points(num_classes: int, **kwargs: Any) -> Criterion:
    """A criterion whose points are the same in every call."""
    criterion, seen = Criterion(num_classes, num_points=40, **kwargs), {}  # type: Any, dict

    def points(name: str, kind: str, shape: tuple[int, int], like: Tensor) -> Tensor:
        return seen.setdefault((name, kind), torch.rand(*shape, 2))

    criterion.points = points
    return criterion


def test_losses_are_those_of_the_masks_of_all_queries() -> None:
    criterion = criterion_with_points(5)
    features = torch.randn(2, 6, 16, 24, requires_grad=True)
    predictions = [
        Prediction(
            torch.randn(2, 9, 6, requires_grad=True), torch.randn(2, 9, 6, requires_grad=True)
        )
        for _ in range(3)
    ]
    targets = [
        ImageTargets(t.labels % 5, t.masks) for t in (oracles.blocks((64, 96), 2, 3), empty_image())
    ]
    inputs = [features, *(x for p in predictions for x in p)]

    def ours() -> Tensor:
        losses = criterion(predictions, features, targets)
        assert list(losses) == [
            f'{p}loss_{t}' for p in ('d0.', 'd1.', '') for t in ('ce', 'mask', 'dice')
        ]
        return torch.stack(list(losses.values()))

    def released() -> Tensor:
        return torch.stack(oracles.losses_released(criterion, predictions, features, targets))

    close(both(ours, inputs), both(released, inputs), 1e-4)


def test_a_step_of_the_released_forms_is_equal() -> None:
    ours, released = oracles.make_step(torch.device('cpu'), (64, 128), num_queries=40)
    close([x.clone() for x in ours()], [x.clone() for x in released()], 1e-3)


def empty_image(size: tuple[int, int] = (64, 96)) -> ImageTargets:
    return ImageTargets(torch.zeros(0, dtype=torch.long), torch.zeros(0, *size, dtype=torch.bool))


def test_without_a_target_masks_cost_nothing_and_stay_in_the_graph() -> None:
    criterion = Criterion(5, num_points=40)
    features = torch.randn(1, 6, 16, 24, requires_grad=True)
    prediction = Prediction(
        torch.zeros(1, 9, 6, requires_grad=True), torch.randn(1, 9, 6, requires_grad=True)
    )
    losses = criterion([prediction], features, [empty_image()])
    assert losses['loss_mask'] == losses['loss_dice'] == 0
    torch.testing.assert_close(losses['loss_ce'], torch.tensor(2 * math.log(6)))
    sum(losses.values()).backward()
    assert all(x.grad is not None for x in (features, *prediction))


def test_dice_of_a_sure_mask_is_zero() -> None:
    truth = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])
    assert dice(200 * truth - 100, truth).tolist() == pytest.approx([0, 0])
    assert dice(100 - 200 * truth, truth)[0] > 0.7


# Targets

PANOPTIC = torch.tensor([[[1, 1, 2, 2, 0], [3, 3, 4, 9, 9], [7, 7, 7, 9, 9]]])
SEGMENTS = [
    dict(id=9, category_id=2, isthing=False, iscrowd=False),
    dict(id=1, category_id=11, isthing=True, iscrowd=False),
    dict(id=2, category_id=11, isthing=True, iscrowd=False),
    dict(id=3, category_id=2, isthing=False, iscrowd=False),
    dict(id=4, category_id=13, isthing=True, iscrowd=True),
    dict(id=7, category_id=13, isthing=True, iscrowd=False),
    dict(id=8, category_id=5, isthing=False, iscrowd=False),  # cropped away
]


def panoptic_sample() -> SegDataSample:
    sample = SegDataSample(metainfo=dict(segments_info=SEGMENTS))
    sample.gt_panoptic_seg = PixelData(panoptic_seg=PANOPTIC)
    classes = {s['id']: s['category_id'] for s in SEGMENTS} | {0: 255}
    label = PANOPTIC.clone().apply_(classes.__getitem__)
    sample.gt_sem_seg = PixelData(data=label)
    return sample


@pytest.mark.parametrize(
    ('task', 'labels', 'ids'),
    [
        ('semantic', [2, 11, 13], [{9, 3}, {1, 2}, {7}]),
        ('instance', [11, 11, 13], [{1}, {2}, {7}]),
        ('panoptic', [2, 11, 11, 2, 13], [{9}, {1}, {2}, {3}, {7}]),
    ],
)
def test_targets_of_a_task(task: str, labels: list[int], ids: list[set[int]]) -> None:
    targets = panoptic_targets(PANOPTIC[0], SEGMENTS, task)
    assert targets.task == task and targets.labels == labels
    masks = targets.masks((4, 8))  # padded to the right and below
    assert masks.shape == (len(ids), 4, 8) and masks.dtype == torch.bool
    for mask, segments in zip(masks, ids, strict=True):
        expected = torch.isin(PANOPTIC[0], torch.tensor(sorted(segments)))
        assert torch.equal(mask[:3, :5], expected) and mask.sum() == expected.sum()


def test_an_id_without_a_segment_is_refused() -> None:
    with pytest.raises(UserError, match='the id 9, which segments_info lacks'):
        panoptic_targets(PANOPTIC[0], SEGMENTS[1:], 'panoptic')


def test_semantic_labels_give_a_target_for_each_class() -> None:
    label = torch.tensor([[3, 3, 255], [0, 255, 3]])
    targets = semantic_targets(label)
    assert targets.labels == [0, 3]
    assert torch.equal(targets.masks((2, 3)), torch.stack([label == 0, label == 3]))
    nothing = semantic_targets(torch.full((2, 3), 255))
    assert nothing.labels == [] and nothing.masks((2, 3)).shape == (0, 2, 3)


def test_tasks_are_drawn_with_their_probabilities_and_by_the_seed() -> None:
    transform, sample = OneFormerTargets((0.5, 0.2, 0.3)), panoptic_sample()
    np.random.seed(0)
    tasks = [transform.draw(sample).task for _ in range(2000)]
    shares = [tasks.count(task) / 2000 for task in ('semantic', 'instance', 'panoptic')]
    assert shares == pytest.approx([0.5, 0.2, 0.3], abs=0.04)
    np.random.seed(0)
    assert tasks[:50] == [transform.draw(sample).task for _ in range(50)]


def test_semantic_data_has_the_semantic_task_only() -> None:
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 4, 4, dtype=torch.long)))
    packed = OneFormerTargets().transform(dict(data_samples=sample))['data_samples']
    assert packed.task == 'semantic' and packed.target_labels == [0]
    with pytest.raises(UserError, match='semantic labels only'):
        OneFormerTargets((0, 0.5, 0.5)).draw(sample)
    with pytest.raises(UserError, match='which sum to 1'):
        OneFormerTargets((0.5, 0.2))


# Results


def random_results(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = 4 * torch.randn(12, 5, 7, generator=generator)
    masks = F.interpolate(masks[None], (20, 28), mode='bilinear')[0]
    return 3 * torch.randn(12, K + 1, generator=generator), masks


@pytest.mark.parametrize('seed', range(20))
def test_panoptic_result_is_that_of_the_loop_over_queries(seed: int) -> None:
    logits, masks = random_results(seed)
    settings = Settings(object_mask_threshold=0.3, overlap_threshold=0.5)
    args = logits, masks.__getitem__, (20, 28), THINGS, settings
    ids, segments = panoptic_segments(*args)
    expected_ids, expected = panoptic_slow(logits, masks, settings)
    assert torch.equal(ids, expected_ids)
    assert [s.category_id for s in segments] == expected
    assert [s.id for s in segments] == list(range(1, len(segments) + 1))
    assert all(s.isthing == (s.category_id in THINGS) for s in segments)


def panoptic_slow(logits: Tensor, masks: Tensor, settings: Settings) -> tuple[Tensor, list[int]]:
    probs = logits.softmax(1)
    kept = [
        q
        for q, row in enumerate(probs)
        if row.argmax() < K and row.max() > settings.object_mask_threshold
    ]
    result, categories = torch.zeros(20, 28, dtype=torch.int32), []  # type: Tensor, list[int]
    stuff: dict[int, int] = {}
    if not kept:
        return result, []
    winner = torch.stack([probs[q].max() * masks[q].sigmoid() for q in kept]).argmax(0)
    for number, q in enumerate(kept):
        won, inside = winner == number, masks[q].sigmoid() >= 0.5
        if not (won.any() and inside.any() and (won & inside).any()):
            continue
        if won.sum() / inside.sum() < settings.overlap_threshold:
            continue
        category = int(probs[q].argmax())
        if category in stuff:
            result[won & inside] = stuff[category]
            continue
        categories.append(category)
        if category not in THINGS:
            stuff[category] = len(categories)
        result[won & inside] = len(categories)
    return result, categories


def test_instances_are_things_by_score() -> None:
    logits, masks = random_results(3)
    args = logits, masks.__getitem__, (20, 28), THINGS
    found = instances(*args, Settings(max_instances=30))
    assert len(found) and set(found.labels.tolist()) <= set(THINGS)
    assert (found.scores.diff() <= 0).all()
    for mask, (x1, y1, x2, y2) in zip(found.masks, found.bboxes.int().tolist(), strict=True):
        rows, columns = mask.nonzero().T
        assert (x1, x2 - 1) == (columns.min(), columns.max())
        assert (y1, y2 - 1) == (rows.min(), rows.max())
    everything = instances(*args, Settings(max_instances=10**6, things_only=False))
    assert len(everything) == 12 * K
    assert len(instances(logits, masks.__getitem__, (20, 28), (), Settings())) == 0


def test_semantic_scores_are_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, masks = random_results(1)
    expected = torch.einsum('qk,qhw->khw', logits.softmax(1)[:, :-1], masks.sigmoid())
    for chunk in (1, 5 * 20 * 28, 10**6):
        monkeypatch.setattr('mmseg_ext.papers.oneformer.inference.CHUNK', chunk)
        found = semantic_scores(logits, masks.__getitem__, (20, 28))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('task', ['semantic', 'instance', 'panoptic'])
def test_every_task_has_results_at_the_size_of_the_file(model: nn.Module, task: str) -> None:
    model.eval().test_cfg = ConfigDict(task=task, object_mask_threshold=0.0, overlap_threshold=0.0)
    model.dataset_meta = dict(classes=['x'] * K, thing_classes=tuple(THINGS))
    images, samples = make_batch(model, size=(64, 96))
    for sample in samples:
        sample.set_metainfo(dict(ori_shape=(50, 70), img_padding_size=(0, 6, 0, 4)))
    with torch.no_grad():
        results = model.predict(images, samples)
    for result in results:
        assert result.seg_logits.data.shape == (K, 50, 70)
        assert torch.equal(result.pred_sem_seg.data[0], result.seg_logits.data.argmax(0))
        assert ('pred_panoptic_seg' in result) == ('pred_instances' in result)
        assert ('pred_panoptic_seg' in result) == (task != 'semantic')
        if task == 'semantic':
            continue
        ids = result.pred_panoptic_seg.panoptic_seg
        assert ids.shape == (1, 50, 70) and ids.dtype == torch.int32
        segments = result.pred_panoptic_seg.segments_info
        assert set(ids.unique().tolist()) <= {0, *(s['id'] for s in segments)} and segments
        assert result.pred_instances.masks.shape[1:] == (50, 70)


def test_a_flipped_image_is_turned_back(model: nn.Module) -> None:
    model.eval().test_cfg = ConfigDict(task='semantic')
    images, samples = make_batch(model, size=(64, 96))
    with torch.no_grad():
        plain = model.predict(images.flip(3), samples)[0].seg_logits.data
        for sample in samples:
            sample.set_metainfo(dict(flip=True, flip_direction='horizontal'))
        turned = model.predict(images.flip(3), samples)[0].seg_logits.data
    torch.testing.assert_close(turned, plain.flip(2))


def test_windows_average_scores_and_have_the_semantic_task_only(model: nn.Module) -> None:
    images, samples = make_batch(model.eval(), size=(64, 96))
    model.test_cfg = ConfigDict(mode='slide', crop_size=(64, 64), stride=(32, 32))
    with torch.no_grad():
        found = model.predict(images, samples)[0].seg_logits.data
        left, right = (
            model.encode_decode(images[..., columns], [dict(img_shape=torch.Size((64, 64)))] * 2)
            for columns in (slice(0, 64), slice(32, 96))
        )
    total = F.pad(left, (0, 32)) + F.pad(right, (32, 0))
    total[..., 32:64] /= 2
    torch.testing.assert_close(found, total[0].log())
    model.test_cfg.task = 'instance'
    with pytest.raises(UserError, match="mode='slide' has the task semantic only, got instance"):
        model.predict(images, samples)


def test_maps_show_queries_regions_and_likeness(model: nn.Module) -> None:
    model.eval().test_cfg = ConfigDict(task='panoptic')
    model.dataset_meta = dict(classes=['road, route', *['x'] * (K - 1)])
    images, samples = make_batch(model, size=(64, 96), count=1)
    maps = model.explain(images, samples)
    queries = [name for name in maps if name.startswith('query_')]
    assert len(queries) == 6 and queries[0].startswith('query_1: ') and ',' not in queries[0]
    assert all(0 <= maps[name].min() <= maps[name].max() <= 1 for name in queries)
    sizes = [maps[f'region_{i}_of_query_1'].shape for i in (1, 2, 3)]
    assert sizes == [(1, 1, 2, 3), (1, 1, 4, 6), (1, 1, 8, 12)]
    likeness = maps['likeness_to_class_names']
    assert likeness.shape == (1, K, 6, 1) and likeness.abs().max() <= 1 + 1e-6
    two, more = make_batch(model, size=(64, 96))
    assert 'query_1' in model.explain(two, more)


def test_texts_have_the_synonyms_of_a_data_set_that_has_them(model: nn.Module) -> None:
    meta = dict(ADE20KPanopticDataset.METAINFO)
    model.dataset_meta = meta
    assert model.decode_head.class_names[1] == 'building, edifice'
    del meta['full_names']
    model.dataset_meta = meta
    assert model.decode_head.class_names[1] == 'building'


# Training and settings


def test_the_names_of_classes_reach_the_texts(model: nn.Module) -> None:
    head = model.decode_head
    model.dataset_meta = dict(classes=[f'name {i}' for i in range(K)])
    targets = [semantic_targets(torch.tensor([[3, 3]]))] * 2
    device = torch.device('cpu')
    vectors = head.text_vectors(targets, device)
    model.dataset_meta = dict(classes=[f'other {i}' for i in range(K)])
    assert not torch.allclose(vectors[:, 0], head.text_vectors(targets, device)[:, 0])
    model.dataset_meta = None
    with pytest.warns(UserWarning, match='knows no names of classes'):
        head.text_vectors(targets, device)


def test_more_objects_than_queries_and_unequal_images_train(model: nn.Module) -> None:
    model.train().dataset_meta = dict(classes=[f'name {i}' for i in range(K)])
    images, samples = make_batch(model, size=(64, 96))
    panoptic = torch.arange(1, 61).view(6, 10)
    segments = [dict(id=i, category_id=i % K, isthing=True, iscrowd=False) for i in range(1, 61)]
    add_targets(samples[0], panoptic_targets(panoptic, segments, 'instance'))  # smaller: padded
    samples[1].gt_sem_seg.data.fill_(255)
    loss = total_loss(model, (images, samples))
    loss.backward()
    assert loss.isfinite()


def test_a_single_class_trains_and_predicts() -> None:
    small = tiny(CONFIG_DIR / 'oneformer/r50_cityscapes.py', num_classes=1).train()
    batch = make_batch(small, size=(64, 64))
    total_loss(small, batch).backward()
    with torch.no_grad():
        (result, _) = small.eval().predict(*batch)
    assert result.pred_sem_seg.data.unique().tolist() == [0]
    assert 0 <= result.seg_logits.data.min() <= result.seg_logits.data.max() <= 1


def test_without_contrast_there_is_no_text_branch() -> None:
    cfg = dict(loss_weights=dict(contrastive=0.0))
    small = tiny(CONFIG_DIR / 'oneformer/r50_cityscapes.py', decode_head=cfg)
    assert not any('text' in name or 'logit_scale' in name for name, _ in small.named_parameters())
    losses = small.train().loss(*make_batch(small))
    assert 'decode.loss_contrastive' not in losses


HEAD = dict(type='OneFormerHead', in_channels=[8, 16, 32, 64], num_classes=3)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(in_channels=64), 'reads several levels'),
        (dict(in_channels=[8, 16, 32]), 'reads four levels of strides 4 to 32'),
        (dict(channels=48), 'channels=48 must be a multiple of 32'),
        (dict(num_queries=16), 'leaves no query for a text'),
    ],
)
def test_impossible_heads_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        MODELS.build(HEAD | change)


def test_impossible_tasks_are_refused() -> None:
    cfg = shrink(dict(SEGMENTOR))
    for test_cfg, sentence in (
        (dict(task='depth'), "task='depth' is unknown: choose semantic, instance or panoptic"),
        (
            dict(task='panoptic', mode='slide', crop_size=(64, 64), stride=(32, 32)),
            'has the task semantic only',
        ),
    ):
        with pytest.raises(UserError, match=sentence):
            build(dict(cfg, test_cfg=test_cfg))


def test_another_head_has_the_semantic_result_for_every_task() -> None:
    fcn = dict(type='FCNHead', in_channels=32, in_index=3, channels=8, num_classes=3)
    other = build(
        dict(shrink(dict(SEGMENTOR)), decode_head=fcn, test_cfg=dict(mode='whole', task='panoptic'))
    )
    with torch.no_grad():
        (result, _) = other.eval().predict(*make_batch(other))
    assert 'pred_sem_seg' in result and 'pred_panoptic_seg' not in result


SEGMENTOR = dict(
    type='OneFormer',
    num_classes=3,
    backbone=dict(type='ConvNeXt'),
    levels=dict(in_channels=[4, 8, 16, 32], in_index=[0, 1, 2, 3]),
    decode_head=dict(type='OneFormerHead'),
)


def test_it_trains_in_the_hosts_encoder_decoder() -> None:
    cfg = shrink(dict(SEGMENTOR))
    head = dict(cfg['decode_head'], **cfg['levels'], num_classes=3)
    plain = build(dict(type='EncoderDecoder', backbone=cfg['backbone'], decode_head=head)).train()
    images, samples = make_batch(plain, size=(64, 64))
    assert total_loss(plain, (images, samples)).isfinite()
    plain.test_cfg = ConfigDict(mode='whole')
    with torch.no_grad():
        (result, _) = plain.eval().predict(images, samples)
    assert result.seg_logits.data.shape == (3, 64, 64)
