"""Semantic, instance and panoptic results of the queries of one image."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ...datasets.panoptic.transforms import boxes_of_masks
from ...layers.sizes import Size

CHUNK = 2**26  # mask logits that are resized at a time: 256 MiB in float32

MaskSource = Callable[[Tensor], Tensor]  # numbers of queries (n,) to mask logits (n, H, W)


class Settings(NamedTuple):
    """Settings of ``test_cfg``.

    Args:
        task: Task of the sentence, and of the results beside the semantic one.
        object_mask_threshold: Least score of a query in the panoptic result.
        overlap_threshold: Least fraction of a mask that must be visible in the panoptic result.
        max_instances: Largest number of instances.
        things_only: Whether instances are things only. The released code restricts them where the
            panoptic result is enabled too.
    """

    task: str = 'semantic'
    object_mask_threshold: float = 0.8
    overlap_threshold: float = 0.8
    max_instances: int = 100
    things_only: bool = True


class Segment(NamedTuple):
    """Segment of a panoptic result."""

    id: int
    category_id: int
    isthing: bool
    score: float


def semantic_scores(logits: Tensor, masks_of: MaskSource, size: Size) -> Tensor:
    """Score of each class, (K, H, W): sum over the queries of class and mask probability.

    Args:
        logits: Class logits (Q, K + 1).
        masks_of: Source of the mask logits.
        size: Size (H, W) of the result.
    """
    probs = logits.softmax(1)[:, :-1]
    total = probs.new_zeros(probs.shape[1], *size)
    numbers = torch.arange(len(probs), device=probs.device)
    for chunk in numbers.split(max(1, CHUNK // (size[0] * size[1]))):
        total += torch.einsum('qk,qhw->khw', probs[chunk], masks_of(chunk).sigmoid())
    return total


def panoptic_segments(
    logits: Tensor, masks_of: MaskSource, size: Size, things: Collection[int], settings: Settings
) -> tuple[Tensor, list[Segment]]:
    """Id of the segment of each pixel, int32 (H, W), 0 for none, and the segments.

    Numbers go to the host once for the queries and once for the areas.

    Args:
        logits: Class logits (Q, K + 1).
        masks_of: Source of the mask logits; it is not called without a query.
        size: Size (H, W) of the result.
        things: Class indices of things.
        settings: Thresholds.
    """
    scores, classes = logits.softmax(1).max(1)
    is_kept = (classes != logits.shape[1] - 1) & (scores > settings.object_mask_threshold)
    kept = is_kept.nonzero()[:, 0]
    count = len(kept)
    if not count:
        return torch.zeros(size, dtype=torch.int32, device=logits.device), []
    probs = masks_of(kept).sigmoid()  # (M, H, W)
    winner = (scores[kept, None, None] * probs).argmax(0)  # (H, W)
    is_inside = probs.gather(0, winner[None])[0] >= 0.5
    areas = torch.stack(
        [
            torch.bincount(winner.flatten(), minlength=count),
            (probs >= 0.5).flatten(1).sum(1),
            torch.bincount(winner.flatten(), is_inside.flatten().float(), minlength=count).long(),
        ]
    )
    table, segments = _decide(areas.T.tolist(), classes[kept], scores[kept], things, settings)
    ids = torch.tensor([0, *table], dtype=torch.int32, device=probs.device)
    return ids[torch.where(is_inside, winner + 1, 0)], segments


def _decide(
    areas: Sequence[Sequence[int]],
    classes: Tensor,
    scores: Tensor,
    things: Collection[int],
    settings: Settings,
) -> tuple[list[int], list[Segment]]:
    """Id of each query, 0 for none, and the segments; same-class stuff is one segment.

    Args:
        areas: Pixels of each query: where it wins, of its mask, and in both.
        classes: (M,).
        scores: (M,).
        things: Class indices of things.
        settings: Thresholds.
    """
    table, segments = [], []  # type: list[int], list[Segment]
    stuff: dict[int, int] = {}
    rows = zip(areas, classes.tolist(), scores.tolist(), strict=True)
    for (won, mask, visible), category, score in rows:
        enough = mask and visible and won / mask >= settings.overlap_threshold
        if not enough:
            table.append(0)
            continue
        if category in stuff:
            table.append(stuff[category])
            continue
        segments.append(Segment(len(segments) + 1, category, category in things, score))
        table.append(len(segments))
        if category not in things:
            stuff[category] = len(segments)
    return table, segments


def instances(
    logits: Tensor, masks_of: MaskSource, size: Size, things: Collection[int], settings: Settings
) -> InstanceData:
    """Instances with ``masks`` (M, H, W), ``labels``, ``scores`` and ``bboxes`` (x, y, x, y).

    Args:
        logits: Class logits (Q, K + 1).
        masks_of: Source of the mask logits; it is not called without a query.
        size: Size (H, W) of the result.
        things: Class indices of things.
        settings: Settings.
    """
    probs = logits.softmax(1)[:, :-1]
    num_classes = probs.shape[1]
    top = probs.flatten().topk(min(settings.max_instances, probs.numel()))
    queries, labels = top.indices // num_classes, top.indices % num_classes
    scores = top.values
    if settings.things_only:
        is_thing = torch.isin(labels, torch.tensor(sorted(things), device=labels.device))
        queries, labels, scores = queries[is_thing], labels[is_thing], scores[is_thing]
    used, position = queries.unique(return_inverse=True)
    masks = torch.zeros(0, *size, dtype=torch.bool, device=logits.device)
    if len(used):
        parts = [_mask_and_quality(masks_of(number)) for number in used.split(1)]
        masks, quality = (torch.cat(column) for column in zip(*parts, strict=True))
        scores = scores * quality[position]
    order = scores.argsort(descending=True, stable=True)
    masks, labels, scores = masks[position[order]], labels[order], scores[order]
    return InstanceData(masks=masks, labels=labels, scores=scores, bboxes=boxes_of_masks(masks))


def _mask_and_quality(mask_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (M, H, W), and the mean probability in each, (M,), of mask logits (M, H, W)."""
    masks = mask_logits > 0
    total = (mask_logits.sigmoid() * masks).flatten(1).sum(1)
    return masks, total / (masks.flatten(1).sum(1) + 1e-6)
