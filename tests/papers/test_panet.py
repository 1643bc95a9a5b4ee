"""PANet: neck, pooling, heads, targets and results against the obvious formulas."""

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.convert import convert
from mmseg_ext.errors import UserError
from mmseg_ext.layers import roi_align as roi_align_module
from mmseg_ext.layers.roi_align import compiled_operator, roi_align
from mmseg_ext.papers.panet import AdaptiveFeaturePooling, PANetBoxHead, PANetFPN, PANetMaskHead
from mmseg_ext.papers.panet.boxes import box_iou, clip, decode, encode, nms, rois_of
from mmseg_ext.papers.panet.instances import (
    Detections,
    as_instance_data,
    paste,
    select,
    semantic_scores,
    windows_of,
)
from mmseg_ext.papers.panet.pooling import fuse_levels
from mmseg_ext.papers.panet.settings import Inference, Training
from mmseg_ext.papers.panet.targets import (
    Objects,
    mask_targets,
    match,
    objects_of,
    sample,
    sample_regions,
    touches_crowd,
)
from tests.oracles import panet as oracles
from tests.tiny import CONFIG_DIR, build, make_batch, tiny, total_loss

GROUPS = dict(type='GN', num_groups=4)
SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'GN': dict(num_groups=4),
    'PANetFPN': dict(out_channels=16, norm_cfg=GROUPS),
    'PANetInstanceHead': dict(
        box_head=dict(type='PANetBoxHead', channels=16, fc_channels=16, norm_cfg=GROUPS),
        mask_head=dict(type='PANetMaskHead', channels=16, norm_cfg=GROUPS),
    ),
}
WIDTHS = (6, 8, 10, 12)
CONFIG = CONFIG_DIR / 'panet/panet_efflite0_streets_instance.py'
init_default_scope('mmseg')


def neck_of(**kwargs: Any) -> PANetFPN:
    torch.manual_seed(0)
    neck = PANetFPN(WIDTHS, out_channels=8, **dict(norm_cfg=GROUPS, num_outs=5) | kwargs)
    for module in neck.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias)
    return neck


def levels_of(sizes: list[tuple[int, int]], widths: tuple[int, ...] = WIDTHS) -> list[Tensor]:
    return [torch.randn(2, width, *size) for width, size in zip(widths, sizes, strict=True)]


DOUBLING = [(16, 24), (8, 12), (4, 6), (2, 3)]


# The neck


def test_the_neck_is_the_released_flow() -> None:
    neck, levels = neck_of(), levels_of(DOUBLING)
    torch.testing.assert_close(list(neck(levels)), oracles.neck_slow(neck, levels))


def test_the_finest_level_is_the_fpns_and_the_others_are_not_negative() -> None:
    neck, levels = neck_of(), levels_of([(17, 25), (9, 13), (5, 7), (3, 4)])
    plain = neck_of(bottom_up=False)
    shared = plain.state_dict().keys()
    plain.load_state_dict({k: v for k, v in neck.state_dict().items() if k in shared})
    outputs = neck(levels)
    assert torch.equal(outputs[0], plain(levels)[0])
    assert outputs[0].min() < 0 and all(x.min() >= 0 for x in outputs[1:])
    assert [tuple(x.shape[2:]) for x in outputs] == [(17, 25), (9, 13), (5, 7), (3, 4), (2, 2)]


def test_without_the_path_it_is_the_hosts_fpn() -> None:
    neck = neck_of(bottom_up=False)
    host = MODELS.build(
        dict(type='FPN', in_channels=list(WIDTHS), out_channels=8, num_outs=5, norm_cfg=GROUPS)
    )
    host.load_state_dict(neck.state_dict())
    levels = levels_of([(17, 25), (9, 13), (5, 7), (3, 4)])
    torch.testing.assert_close(neck(levels), host(levels), rtol=0, atol=0)


@pytest.mark.parametrize('flow', ['panet', 'mmdet'])
def test_a_step_reads_the_finished_finer_level_as_released(flow: str) -> None:
    neck, levels = neck_of(flow=flow), levels_of(DOUBLING)
    before = neck(levels)
    nn.init.zeros_(neck.pafpn_convs[0].conv.weight)
    nn.init.zeros_(neck.pafpn_convs[0].conv.bias)
    nn.init.zeros_(neck.pafpn_convs[0].gn.bias)
    after = neck(levels)
    assert torch.equal(before[0], after[0]) and not after[1].any()
    for old, new in zip(before[2:], after[2:], strict=True):
        assert torch.equal(old, new) == (flow == 'mmdet')
        assert new.any()


def test_convolutions_start_uniformly() -> None:
    neck = neck_of()
    neck.init_weights()
    for module in neck.modules():
        if isinstance(module, nn.Conv2d):
            limit = (3 / module.weight[0].numel()) ** 0.5
            assert 0.8 * limit < module.weight.abs().max() <= limit


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(num_outs=3), 'num_outs=3 must be at least the 4 levels'),
        (dict(flow='other'), "flow='other' is unknown: choose from panet, mmdet"),
        (dict(norm_cfg=dict(type='GN', num_groups=3)), 'out_channels=8 must be a multiple of 3'),
    ],
)
def test_impossible_necks_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        neck_of(**change)


def test_other_levels_than_its_own_are_refused() -> None:
    with pytest.raises(UserError, match='got 3 levels, but in_channels='):
        neck_of()(levels_of(DOUBLING)[:3])


# RoIAlign and pooling


def some_rois() -> Tensor:
    boxes = [
        (0, 3, 2, 40, 30),
        (1, -20, -9, 30, 25),  # beyond the edges
        (0, 50, 40, 130, 90),
        (1, 10.5, 12.25, 11, 12.5),  # smaller than a cell
        (0, 200, 200, 300, 300),  # outside
        (1, 0, 0, 63, 47),
    ]
    return torch.tensor(boxes, dtype=torch.float)


@pytest.mark.parametrize('sampling_ratio', [0, 1, 2])
@pytest.mark.parametrize('cells', [(12, 16), (6, 1), (1, 1)], ids=str)
def test_roi_align_is_the_formula(sampling_ratio: int, cells: tuple[int, int]) -> None:
    features = torch.randn(2, 3, *cells, requires_grad=True)
    found = roi_align(features, some_rois(), 3, 4, sampling_ratio)
    expected = oracles.roi_align_slow(features, some_rois(), 3, 4, sampling_ratio)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad((x * weight).sum(), features)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_roi_align_keeps_constants_and_ramps() -> None:
    ramp = torch.arange(20.0).expand(1, 1, 20, 20)
    roi = torch.tensor([[0, 8.0, 8, 36, 36]])
    assert roi_align(torch.full_like(ramp, 3), roi, 7, 4).eq(3).all()
    centres = 2 + torch.arange(7) + 0.5  # 7 bins of a cell each, from the cell 2 on
    torch.testing.assert_close(roi_align(ramp, roi, 7, 4)[0, 0, 0], centres)


def test_a_region_that_is_nan_gives_nan() -> None:
    rois = torch.tensor([[0, 8.0, 8, 36, 36], [0, float('nan'), 8, 36, 36]])
    good, bad = roi_align(torch.randn(1, 2, 20, 20), rois, 3, 4)
    assert good.isfinite().all() and bad.isnan().all()


def test_roi_align_of_no_region_and_of_half_precision() -> None:
    features = torch.randn(2, 3, 8, 8)
    assert roi_align(features, torch.zeros(0, 5), 7, 4).shape == (0, 3, 7, 7)
    assert roi_align(features.bfloat16(), some_rois(), 7, 4).dtype == torch.float32
    assert roi_align(features.double(), some_rois(), 7, 4).dtype == torch.float64


@pytest.fixture
def fresh_operator() -> Iterator[None]:
    compiled_operator.cache_clear()
    yield
    compiled_operator.cache_clear()


def test_a_compiled_operator_is_used_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, fresh_operator: None
) -> None:
    calls = []

    def operator(features: Tensor, rois: Tensor, size: Any, scale: float, *args: Any, **kw: Any):
        calls.append((size, scale, args, kw))
        return features[:0]

    ops: Any = ModuleType('torchvision.ops')
    ops.roi_align = operator
    monkeypatch.setitem(sys.modules, 'torchvision', ModuleType('torchvision'))
    monkeypatch.setitem(sys.modules, 'torchvision.ops', ops)
    roi_align(torch.randn(2, 3, 8, 8), some_rois(), 7, 4)
    assert calls == [((7, 7), 0.25, (2,), dict(aligned=False))]


def test_operators_that_do_not_load_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, fresh_operator: None
) -> None:
    def fail(name: str) -> None:
        raise RuntimeError('operator torchvision::nms does not exist')

    monkeypatch.setattr(roi_align_module, 'import_module', fail)
    assert compiled_operator() is None


def test_pooling_keeps_the_order_and_the_image_of_regions() -> None:
    levels = levels_of([(16, 24), (8, 12), (4, 6), (2, 3)], (5,) * 4)
    order = torch.tensor([5, 2, 0, 4, 1, 3])
    for pooling in (AdaptiveFeaturePooling(), AdaptiveFeaturePooling(levels='assigned')):
        grids = list(pooling(levels, some_rois(), 3))
        turned = list(pooling(levels, some_rois()[order], 3))
        assert len(grids) == pooling.num_grids
        for grid, moved in zip(grids, turned, strict=True):
            torch.testing.assert_close(grid[order], moved)


def test_assigned_regions_come_from_the_level_of_their_size() -> None:
    pooling = AdaptiveFeaturePooling(levels='assigned')
    sizes = torch.tensor([10.0, 111, 112, 223, 224, 447, 448, 5000])
    rois = torch.stack([torch.zeros(8), torch.zeros(8), torch.zeros(8), sizes - 1, sizes - 1], 1)
    assert pooling.assign(rois).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    levels = levels_of([(64, 64), (32, 32), (16, 16), (8, 8)], (2,) * 4)
    (grid,) = pooling(levels, rois, 3)
    expected = [
        roi_align(levels[i], rois[m : m + 1], 3, 4 * 2**i)[0]
        for m, i in enumerate(pooling.assign(rois).tolist())
    ]
    torch.testing.assert_close(grid, torch.stack(expected))


def test_the_running_maximum_is_that_of_the_stack_with_its_gradients() -> None:
    head = PANetBoxHead(in_channels=8, num_classes=3, channels=8, fc_channels=8, norm_cfg=GROUPS)
    grids = [torch.randn(5, 8, 7, 7, requires_grad=True) for _ in range(4)]
    results = [
        fuse_levels(head.levels, iter(grids), 'max'),
        oracles.fusion_released(head.levels, grids),
    ]
    assert torch.equal(*results)
    weight = torch.randn_like(results[0])
    inputs = [*grids, *head.levels.parameters()]
    ours, released = (torch.autograd.grad((x * weight).sum(), inputs) for x in results)
    for found, expected in zip(ours, released, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_levels_may_change_places_with_their_layers_and_are_summed_by_choice() -> None:
    head = PANetMaskHead(in_channels=8, num_classes=3, channels=8, norm_cfg=GROUPS)
    grids = [torch.randn(2, 8, 14, 14) for _ in range(4)]
    reverse = nn.ModuleList(reversed(head.levels))
    for fusion in ('max', 'sum'):
        fused = fuse_levels(head.levels, grids, fusion)
        torch.testing.assert_close(fused, fuse_levels(reverse, grids[::-1], fusion))
    total = sum(layer(grid) for layer, grid in zip(head.levels, grids, strict=True))
    torch.testing.assert_close(fused, total)


def test_one_level_is_pooled_after_the_other() -> None:
    events: list[str] = []

    def grids() -> Iterator[Tensor]:
        for i in range(4):
            events.append(f'pool {i}')
            yield torch.zeros(1)

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            events.append('layer')
            return x

    fuse_levels(nn.ModuleList(Layer() for _ in range(4)), grids(), 'max')
    assert events == ['pool 0', 'layer', 'pool 1', 'layer', 'pool 2', 'layer', 'pool 3', 'layer']


# The heads


def mask_head(**kwargs: Any) -> PANetMaskHead:
    torch.manual_seed(0)
    defaults = dict(in_channels=8, num_classes=3, channels=8, roi_size=4, norm_cfg=GROUPS)
    return PANetMaskHead(**defaults | kwargs)


def test_masks_of_the_needed_classes_are_those_of_all_classes() -> None:
    head, grids = mask_head(), [torch.randn(5, 8, 4, 4) for _ in range(4)]
    labels = torch.tensor([2, 0, 1, 1, 3])
    all_classes = head(grids)
    expected = all_classes[torch.arange(5), labels]
    torch.testing.assert_close(head.logits_of(grids, labels), expected, rtol=1e-5, atol=1e-6)
    target = (torch.rand(5, 8, 8) > 0.5).float()
    released = oracles.mask_loss_released(head, grids, labels, target)
    loss = nn.functional.binary_cross_entropy_with_logits(head.logits_of(grids, labels), target)
    torch.testing.assert_close(loss, released)
    pairs = [torch.autograd.grad(x, list(head.parameters())) for x in (loss, released)]
    for found, wanted in zip(*pairs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_mask_ignores_other_classes() -> None:
    head, grids = mask_head(), [torch.randn(2, 8, 4, 4) for _ in range(4)]
    head.logits_of(grids, torch.tensor([1, 1])).square().sum().backward()
    rows = head.classify.weight.grad.flatten(1).any(1)
    assert rows.tolist() == [False, True, False, False]


def test_the_fully_connected_map_is_the_same_for_all_classes_and_only_raises_logits() -> None:
    head, grids = mask_head(), [torch.randn(2, 8, 4, 4) for _ in range(4)]
    main, fc = head.features(grids)
    assert fc is not None and fc.min() >= 0 and fc.any()
    torch.testing.assert_close(head(grids) - head.classify(main), fc.expand(-1, 4, -1, -1))
    signed = mask_head(fc_relu=False)
    signed.load_state_dict(head.state_dict())
    assert signed.features(grids).fc.min() < 0
    assert mask_head(fc_fusion=False).features(grids).fc is None


@pytest.mark.parametrize('kind', ['conv', '2fc'])
def test_box_heads_give_a_class_and_a_box_for_each_class(kind: str) -> None:
    head = PANetBoxHead(
        in_channels=8, num_classes=3, kind=kind, channels=8, fc_channels=12, norm_cfg=GROUPS
    )
    output = head([torch.randn(5, 8, 7, 7) for _ in range(4)])
    assert output.features.shape == (5, 12) and output.logits.shape == (5, 4)
    assert output.deltas.shape == (5, 4, 4)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(fusion='mean'), "fusion='mean' is unknown: choose from max, sum"),
        (dict(channels=9), 'channels=9 must be a multiple of 4'),
        (dict(channels=4), 'half of channels=2 must be a multiple of 4'),
    ],
)
def test_impossible_mask_heads_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        mask_head(**change)


def test_impossible_box_heads_and_poolings_are_refused() -> None:
    with pytest.raises(UserError, match="kind='fc' is unknown: choose from conv, 2fc"):
        PANetBoxHead(in_channels=8, num_classes=3, kind='fc')
    with pytest.raises(UserError, match="levels='one' is unknown: choose from all, assigned"):
        AdaptiveFeaturePooling(levels='one')


# Boxes


def random_boxes(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 40, (count, 2), generator=generator).float()
    return torch.cat([corner, corner + torch.randint(1, 30, (count, 2), generator=generator)], 1)


def test_deltas_are_the_released_ones_and_decoding_inverts_them() -> None:
    boxes, targets, weights = random_boxes(20), random_boxes(20, 1), (10.0, 10.0, 5.0, 5.0)
    last = torch.tensor([0.0, 0, 1, 1])
    released = oracles.encode_released(boxes - last, targets - last, weights)
    deltas = encode(boxes, targets, weights)
    torch.testing.assert_close(deltas, released)
    torch.testing.assert_close(decode(boxes, deltas, weights), targets, rtol=1e-5, atol=1e-4)


def test_overlaps_and_suppression_are_those_of_the_released_boxes() -> None:
    boxes, scores = random_boxes(60), torch.rand(60)
    groups = torch.randint(0, 3, (60,))
    last = torch.tensor([0, 0, 1, 1])
    expected = [
        [oracles.iou_slow(a, b) for b in (boxes - last).tolist()] for a in (boxes - last).tolist()
    ]
    torch.testing.assert_close(box_iou(boxes, boxes), torch.tensor(expected))
    for threshold in (0.1, 0.5, 1.0):
        found = nms(boxes, scores, groups, threshold)
        assert found.tolist() == oracles.nms_slow(boxes, scores, groups, threshold)
    assert nms(boxes[:0], scores[:0], groups[:0], 0.5).tolist() == []


def test_regions_end_at_the_last_pixel() -> None:
    rois = rois_of([torch.tensor([[2.0, 3, 10, 20]]), torch.tensor([[0.0, 0, 1, 1]])])
    assert rois.tolist() == [[0, 2, 3, 9, 19], [1, 0, 0, 0, 0]]


def test_boxes_outside_of_the_image_lose_their_area() -> None:
    boxes = torch.tensor([[-10.0, -10, -5, 5], [50, 60, 500, 600], [5, 6, 7, 8]])
    found = clip(boxes, (0, 0, 64, 64))
    assert found.tolist() == [[0, 0, 0, 5], [50, 60, 64, 64], [5, 6, 7, 8]]


# Targets


def objects(boxes: list, labels: list[int], size: tuple[int, int] = (64, 64)) -> Objects:
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    tensor = torch.tensor(boxes, dtype=torch.float).view(-1, 4)
    return Objects(tensor, torch.tensor(labels, dtype=torch.long), masks, torch.zeros(0, 4))


def test_boxes_are_matched_by_thresholds_and_each_object_has_its_best_box() -> None:
    image = objects([[0, 0, 10, 10], [30, 30, 34, 34]], [1, 0])
    boxes = torch.tensor(
        [[0.0, 0, 10, 9], [0, 0, 10, 5], [0, 0, 10, 2], [30, 30, 50, 50], [50, 0, 60, 9]]
    )
    matched = match(boxes, image.boxes, 0.7, 0.3, best=True)
    assert matched.is_positive.tolist() == [True, False, False, True, False]
    assert matched.is_negative.tolist() == [False, False, True, False, True]
    assert matched.number[[0, 3]].tolist() == [0, 1]
    plain = match(boxes, image.boxes, 0.7, 0.3)
    assert plain.is_positive.tolist() == [True, False, False, False, False]
    empty = match(boxes, image.boxes[:0], 0.7, 0.3, best=True)
    assert empty.is_negative.all() and not empty.is_positive.any()


def test_samples_have_the_right_number_and_are_random() -> None:
    positive = torch.arange(1000) < 300
    draws = [sample(positive, ~positive, 100, 0.25) for _ in range(2)]
    for inside, outside in draws:
        assert len(inside) == 25 and len(outside) == 75
        assert positive[inside].all() and not positive[outside].any()
        assert len(inside.unique()) == 25
    assert not torch.equal(draws[0][0], draws[1][0])
    inside, outside = sample(positive & (torch.arange(1000) < 3), ~positive, 100, 0.25)
    assert len(inside) == 3 and len(outside) == 97


def test_regions_are_objects_and_background_but_not_crowds() -> None:
    image = objects([[0, 0, 20, 20], [40, 40, 60, 60]], [2, 0])
    image = image._replace(crowds=torch.tensor([[0.0, 40, 20, 60]]))
    proposals = torch.tensor([[0.0, 0, 20, 18], [2, 42, 12, 52], [45, 0, 60, 10]])
    regions = sample_regions(proposals, image, 3, Training(rois_per_image=16))
    assert sorted(regions.labels.tolist()) == [0, 2, 2, 3]
    assert regions.boxes[-1].tolist() == [45, 0, 60, 10]
    for box, number in zip(regions.boxes, regions.numbers, strict=False):
        assert box_iou(box[None], image.boxes[number][None]) >= 0.5
    assert touches_crowd(proposals, image.crowds).tolist() == [False, True, False]


def test_mask_targets_are_the_pixels_at_the_centres_of_cells() -> None:
    masks = torch.rand(2, 40, 50) > 0.5
    boxes = torch.tensor([[3.0, 4, 17, 18], [10, 0, 38, 28], [5, 5, 6, 7]])
    numbers = torch.tensor([1, 0, 1])
    found = mask_targets(boxes, masks, numbers, 14)
    assert torch.equal(found[0], masks[1, 4:18, 3:17])
    assert torch.equal(found[1], masks[0, 1:28:2, 11:38:2])
    assert torch.equal(found[2][:7], masks[1, 5, 5].expand(7, 14))


def sample_of(boxes: Any, labels: Any, masks: Tensor, **more: Any) -> SimpleNamespace:
    instances = InstanceData(bboxes=torch.tensor(boxes), labels=torch.tensor(labels), masks=masks)
    for key, value in more.items():
        instances[key] = value
    return SimpleNamespace(get=dict(gt_instances=instances).get)


def test_objects_are_clipped_and_those_without_area_are_omitted() -> None:
    boxes = [[-5.0, 0, 10, 80], [70, 0, 80, 9], [3, 3, 3, 9], [0, 0, 5, 5], [9, 9, 5, 5]]
    label = sample_of(
        boxes,
        [0, 1, 2, 1, 1],
        torch.ones(5, 64, 64, dtype=torch.bool),
        iscrowd=torch.tensor([False, False, False, True, False]),
    )
    found = objects_of(label, (0, 0, 64, 64), 3, torch.zeros(1))
    assert found.boxes.tolist() == [[0, 0, 10, 64]] and found.labels.tolist() == [0]
    assert found.masks.shape == (1, 64, 64) and found.crowds.tolist() == [[0, 0, 5, 5]]


@pytest.mark.parametrize(
    ('label', 'sentence'),
    [
        (SimpleNamespace(get={}.get), 'no objects with masks: use LoadPanoptic'),
        (
            sample_of([[0.0, 0, 5, 5]], [3], torch.ones(1, 64, 64)),
            'label 3, but the classes are 0 to 2',
        ),
        (sample_of([[0.0, 0, 5, 5]], [-1], torch.ones(1, 64, 64)), 'label -1, but the classes'),
        (sample_of([[0.0, 0, float('nan'), 5]], [0], torch.ones(1, 64, 64)), 'NaN or infinite'),
        (sample_of([[0.0, 0, 5, 5]], [0], torch.ones(1, 32, 64)), 'masks of objects are 64x32'),
    ],
)
def test_wrong_objects_are_refused(label: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        objects_of(label, (0, 0, 64, 64), 3, torch.zeros(1))


# Results


def test_masks_are_pasted_as_the_formula_says() -> None:
    boxes = torch.tensor([[2.3, 1.6, 9.1, 7.7], [-3, -2, 4, 5], [8, 3, 14, 20]])
    masks = torch.rand(3, 5, 5)
    detections = Detections(boxes, torch.ones(3), torch.zeros(3, dtype=torch.long), masks)
    for (rows, columns, probs), box, mask in zip(
        paste(detections, (9, 12)), boxes.tolist(), masks, strict=True
    ):
        expected = oracles.paste_slow(mask, box, (9, 12))
        torch.testing.assert_close(probs, expected[rows, columns], rtol=1e-4, atol=1e-5)
    data = as_instance_data(detections, (9, 12), 0.5)
    assert data.masks.shape == (3, 9, 12) and data.masks.any()
    assert data.bboxes[1].tolist() == [0, 0, 4, 5] and data.bboxes[2].tolist() == [8, 3, 12, 9]


def test_boxes_without_pixels_have_empty_masks() -> None:
    boxes = torch.tensor([[3.0, 3, 3, 3], [40, 40, 50, 50]])
    detections = Detections(boxes, torch.ones(2), torch.zeros(2).long(), torch.ones(2, 5, 5))
    data = as_instance_data(detections, (9, 12), 0.5)
    assert not data.masks.any() and len(data.labels) == 2


def test_the_best_instance_of_a_class_counts_at_a_pixel() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 8, 4], [0, 0, 8, 4]])
    masks, labels = torch.ones(3, 2, 2), torch.tensor([1, 1, 0])
    scores = torch.tensor([0.9, 0.6, 0.7])
    found = semantic_scores(Detections(boxes, scores, labels, masks), 3, (4, 8))
    assert (
        found[1, 1, 1] == torch.tensor(0.9)
        and found[1, 1, 5] == torch.tensor(0.6)
        and not found[2].any()
    )
    assert found[0, 1, 2] == torch.tensor(0.7)


@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_instances_go_back_to_the_file(direction: str) -> None:
    meta = dict(
        img_shape=(20, 40),
        ori_shape=(40, 80),
        flip=True,
        flip_direction=direction,
        padding_size=(2, 0, 4, 0),
    )
    detections = Detections(
        torch.tensor([[12.0, 9, 22, 14]]), torch.ones(1), torch.zeros(1), torch.rand(1, 5, 5)
    )
    moved = detections.moved(meta, (24, 42))
    expected = [20, 20, 40, 30] if direction == 'vertical' else [40, 10, 60, 20]
    assert moved.boxes.tolist() == [expected]
    axis = 2 if direction == 'horizontal' else 1
    assert torch.equal(moved.masks, detections.masks.flip(axis))
    assert windows_of([meta, {}], (24, 42)) == [(2, 4, 42, 24), (0, 0, 42, 24)]


def test_instances_are_selected_by_score_and_suppressed_within_their_class() -> None:
    proposals = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 40, 40]])
    logits = torch.tensor([[4.0, 3, 0], [3, 4, 0], [-9, -9, 9]])
    boxes, scores, labels = select(
        proposals, logits, torch.zeros(3, 3, 4), (0, 0, 64, 64), Inference()
    )
    assert sorted(labels.tolist()) == [0, 1] and boxes.shape == (2, 4)
    assert (scores.diff() <= 0).all()
    nothing = select(
        proposals, logits, torch.zeros(3, 3, 4), (0, 0, 64, 64), Inference(score_threshold=0.99)
    )
    assert [len(part) for part in nothing] == [0, 0, 0]


# The whole model


def test_switched_off_it_is_mask_rcnn_on_the_hosts_fpn() -> None:
    off = dict(neck=dict(bottom_up=False))
    head = dict(
        pooling=dict(levels='assigned'),
        box_head=dict(channels=16, fc_channels=16, norm_cfg=GROUPS),
        mask_head=dict(channels=16, fc_fusion=False, norm_cfg=GROUPS),
    )
    model = tiny(CONFIG, **off)
    cfg = dict(type='PANetInstanceHead', in_channels=[16] * 5, num_classes=8, **head)
    model.decode_head = MODELS.build(cfg)
    names = [name for name, _ in model.named_parameters()]
    assert not any('pafpn' in name or 'downsample' in name or 'fc_branch' in name for name in names)
    for part in (model.decode_head.box_head, model.decode_head.mask_head):
        assert len(part.levels) == 1
    host = MODELS.build(
        dict(
            type='FPN',
            in_channels=model.neck.in_channels,
            out_channels=16,
            num_outs=5,
            norm_cfg=GROUPS,
        )
    )
    host.load_state_dict(model.neck.state_dict())
    batch = make_batch(model)
    total_loss(model.train(), batch).backward()
    with torch.no_grad():
        (result, _) = model.eval().predict(*batch)
        expected = list(result.pred_instances.scores)
        model.neck = host
        (again, _) = model.predict(*batch)
    assert list(again.pred_instances.scores) == expected


@pytest.fixture(scope='module')
def trained() -> tuple[nn.Module, Any]:
    """A small model that has learned two objects of an image, and its batch."""
    torch.manual_seed(0)
    model = tiny(CONFIG, num_classes=2)
    label = objects([[8, 8, 40, 40], [50, 16, 90, 60]], [0, 1], (64, 96))
    images, samples = make_batch(model, size=(64, 96), count=1)
    images = images * 0
    for i, mask in enumerate(label.masks):
        images[0, i, mask] = 2.0
    samples[0].gt_instances = InstanceData(
        bboxes=label.boxes, labels=label.labels, masks=label.masks
    )
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.1  # 0.01 needs more iterations
    optimizer = torch.optim.Adam(model.train().parameters(), lr=3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        total_loss(model, (images, samples)).backward()
        optimizer.step()
    return model.eval(), (images, samples)


def test_it_learns_the_objects_of_an_image(trained: tuple[nn.Module, Any]) -> None:
    model, (images, samples) = trained
    with torch.no_grad():
        (result,) = model.predict(images, samples)
    found, label = result.pred_instances, samples[0].gt_instances
    assert sorted(found.labels[:2].tolist()) == [0, 1] and found.scores[1] > 0.5
    for box, mask, category in zip(
        found.bboxes[:2], found.masks[:2], found.labels[:2], strict=True
    ):
        assert box_iou(box[None], label.bboxes[category][None]) > 0.6
        truth = label.masks[category]
        assert (mask & truth).sum() / (mask | truth).sum() > 0.7
    assert result.pred_sem_seg.data[0, 20, 20] == 0 and result.pred_sem_seg.data[0, 40, 70] == 1


def test_its_maps_show_the_levels_and_both_branches(trained: tuple[nn.Module, Any]) -> None:
    model, (images, samples) = trained
    model.dataset_meta = dict(classes=('disc', 'box'))
    maps = model.explain(images, samples)
    shares = maps['share_of_levels']
    torch.testing.assert_close(shares.sum(1), torch.ones_like(shares.sum(1)))
    main, fc, total = (
        next(x for name, x in maps.items() if name.startswith(f'mask_1_{branch}: '))
        for branch in ('main', 'fc', 'sum')
    )
    assert main.shape == (1, 1, 64, 96) and 'winning_level' in maps
    inside = total > 0
    assert inside.any() and (fc >= 0).all()
    pixels = total[0, 0, 30, 60], main[0, 0, 30, 60], fc[0, 0, 30, 60]
    assert (pixels[0] > 0.5) == (pixels[1] + pixels[2] > 0)
    with pytest.raises(UserError, match='does not explain single pixels'):
        model.explain(images, samples, pixel=(3, 3))


def test_images_without_objects_and_objects_without_area_train() -> None:
    model = tiny(CONFIG).train()
    images, samples = make_batch(model)
    samples[0].gt_instances = InstanceData(
        bboxes=torch.tensor([[3.0, 3, 3, 9], [-9, -9, -1, -1]]),
        labels=torch.tensor([0, 1]),
        masks=torch.zeros(2, 65, 97, dtype=torch.bool),
    )
    samples[1].gt_instances = samples[0].gt_instances[:0]
    losses = model.loss(images, samples)
    assert losses['decode.loss_mask'] == 0 and losses['decode.loss_box'] == 0
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None and p.grad.isfinite().all() for p in trained)


def test_regions_far_larger_than_the_image_and_single_classes_work() -> None:
    model = tiny(CONFIG, num_classes=1).train()
    images, samples = make_batch(model, size=(32, 32))
    for item in samples:
        item.gt_instances.bboxes = torch.tensor([[-500.0, -500, 900, 900]])
    assert total_loss(model, (images, samples)).isfinite()
    with torch.no_grad():
        (result, _) = model.eval().predict(images, samples)
    assert 0 <= result.seg_logits.data.min() <= result.seg_logits.data.max() <= 1
    boxes = result.pred_instances.bboxes
    assert boxes.min() >= 0 and boxes.max() <= 32


def test_settings_are_read_and_wrong_ones_refused() -> None:
    model = tiny(CONFIG, test_cfg=dict(mode='whole', max_instances=3, score_threshold=0.0))
    with torch.no_grad():
        (result, _) = model.eval().predict(*make_batch(model))
    assert len(result.pred_instances) == 3
    for cfg, sentence in (
        (dict(test_cfg=dict(nms=0.5)), "test_cfg has the unknown key 'nms': choose from"),
        (dict(train_cfg=dict(rois_per_image=0)), 'train_cfg.rois_per_image=0 must be a positive'),
        (dict(test_cfg=dict(score_threshold='low')), 'must be a positive number'),
        (
            dict(num_classes=1, test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(40, 40))),
            'which a single class does not have',
        ),
    ):
        with pytest.raises(UserError, match=sentence):
            tiny(CONFIG, **cfg)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(in_channels=16), 'reads several levels'),
        (dict(in_channels=[16, 16, 16, 16, 8]), 'levels of one width'),
        (dict(strides=(4, 8)), 'has 2 strides for 5 levels'),
        (dict(pooling=dict(strides=(4, 8, 16, 32, 64, 128))), 'pooling has 6 strides'),
    ],
)
def test_impossible_heads_are_refused(change: dict, sentence: str) -> None:
    cfg = dict(type='PANetInstanceHead', in_channels=[16] * 5, num_classes=3)
    with pytest.raises(UserError, match=sentence):
        MODELS.build(cfg | change)


def test_another_head_and_sliding_windows_have_the_semantic_result() -> None:
    plain = tiny(CONFIG, decode_head=dict(_delete_=True, type='FCNHead', channels=8))
    slide = tiny(CONFIG, test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(40, 40)))
    for model in (plain, slide):
        with torch.no_grad():
            (result, _) = model.eval().predict(*make_batch(model, size=(70, 90)))
        assert result.seg_logits.data.shape == (8, 70, 90) and 'pred_instances' not in result


def norm_names(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f'{name}.weight': (width,), f'{name}.bias': (width,)}


def conv_names(name: str, *shape: int, bias: bool = False) -> dict[str, tuple[int, ...]]:
    biases = {f'{name}.0.bias': shape[:1]} if bias else {}
    return {f'{name}.0.weight': shape, **biases, **norm_names(f'{name}.1', shape[0])}


def body_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released ResNet-50."""
    body, before = 'Conv_Body.conv_body.', 64
    shapes: dict[str, tuple[int, ...]] = {f'{body}res1.conv1.weight': (64, 3, 7, 7)}
    shapes |= norm_names(f'{body}res1.bn1', 64)
    for stage, count in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(count):
            name = f'{body}res{stage + 2}.{block}.'
            widths = [(width, before, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            for i, shape in enumerate(widths, 1):
                shapes[f'{name}conv{i}.weight'] = shape
                shapes |= norm_names(f'{name}bn{i}', shape[0])
            if block == 0:
                shapes |= conv_names(f'{name}downsample', 4 * width, before, 1, 1)
            before = 4 * width
    return shapes


def released_names(classes: int, d: int = 64) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released checkpoint of ResNet-50 with a narrow neck and heads."""
    shapes = body_names() | conv_names('Conv_Body.conv_top', d, 2048, 1, 1)
    for i, width in enumerate((1024, 512, 256)):
        name = f'Conv_Body.topdown_lateral_modules.{i}.conv_lateral'
        shapes |= conv_names(name, d, width, 1, 1)
        for step in (1, 2):
            name = f'Conv_Body.panet_buttomup_conv{step}_modules.{i}'
            shapes |= conv_names(name, d, d, 3, 3, bias=True)
    levels = ('Conv_Body.posthoc_modules', 'Box_Head.conv1_head', 'Mask_Head.mask_conv1')
    for name in (f'{part}.{i}' for part in levels for i in range(4)):
        shapes |= conv_names(name, d, d, 3, 3)
    for name, *shape in (
        ('RPN.FPN_RPN_conv', d, d, 3, 3),
        ('RPN.FPN_RPN_cls_score', 3, d, 1, 1),
        ('RPN.FPN_RPN_bbox_pred', 12, d, 1, 1),
        ('Box_Head.fc', 32, d * 49),
        ('Box_Outs.cls_score', classes + 1, 32),
        ('Box_Outs.bbox_pred', 4 * (classes + 1), 32),
        ('Mask_Head.mask_fc.0', 784, d // 2 * 196),
        ('Mask_Head.upconv', d, d, 2, 2),
        ('Mask_Outs.classify', classes + 1, d, 1, 1),
    ):
        shapes |= {f'{name}.weight': tuple(shape), f'{name}.bias': (shape[0],)}
    for name, count in (('Box_Head.convs', 3), ('Mask_Head.conv_fcn', 2)):
        for i in range(count):
            shapes[f'{name}.{3 * i}.weight'] = (d, d, 3, 3)
            shapes |= norm_names(f'{name}.{3 * i + 1}', d)
    for name, width in (('mask_conv4', d), ('mask_conv4_fc', d), ('mask_conv5_fc', d // 2)):
        shapes |= conv_names(f'Mask_Head.{name}', width, d, 3, 3)
    return shapes


def test_a_released_checkpoint_fills_the_coco_config() -> None:
    state = {name: torch.randn(shape) for name, shape in released_names(5).items()}
    weights = convert('panet', {f'module.{name}': x for name, x in state.items()})
    d, cfg = 64, narrow_coco_model(5)
    model = build(cfg)
    model.load_state_dict(weights)
    for released, ours, rows in (
        ('Box_Outs.cls_score.bias', 'box_head.classify.bias', 1),
        ('Box_Outs.bbox_pred.bias', 'box_head.regress.bias', 4),
        ('Mask_Outs.classify.bias', 'mask_head.classify.bias', 1),
    ):
        found = weights[f'decode_head.{ours}']
        assert torch.equal(found[-rows:], state[released][:rows])  # the background
        assert torch.equal(found[:-rows], state[released][rows:])
    norm = model.backbone.layer1[0].bn1.train()
    x = torch.randn(2, d, 5, 5)
    scale, shift = (state[f'Conv_Body.conv_body.res2.0.bn1.{k}'] for k in ('weight', 'bias'))
    expected = x * scale[:, None, None] + shift[:, None, None]
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match='1 of .* another model: Box_Head.extra'):
        convert('panet', state | {'Box_Head.extra': torch.zeros(1)})


def narrow_coco_model(classes: int) -> ConfigDict:
    """The COCO model with the widths of ``released_names``."""
    cfg = Config.fromfile(CONFIG_DIR / 'panet/panet_r50_coco.py').model
    cfg.num_classes = classes
    cfg.backbone.pop('init_cfg')
    cfg.neck.out_channels = 64
    cfg.levels.in_channels = [64] * 5
    cfg.head_level.in_channels = 64
    cfg.decode_head.box_head = dict(type='PANetBoxHead', channels=64, fc_channels=32)
    cfg.decode_head.mask_head = dict(type='PANetMaskHead', channels=64)
    return cfg
