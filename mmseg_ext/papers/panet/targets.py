"""Objects of a label, and the anchors and regions that are compared with them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import UserError
from .boxes import Window, areas, box_iou, clip, intersections
from .settings import Training

CROWD_OVERLAP = 0.7  # fraction of a box in a crowd from which on it is no background


class Objects(NamedTuple):
    """Objects of an image.

    Args:
        boxes: (G, 4), of positive area.
        labels: Class indices (G,).
        masks: (G, H, W), bool.
        crowds: Boxes (C, 4) of crowds.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    crowds: Tensor


class Matches(NamedTuple):
    """Boxes compared with objects.

    Args:
        number: Number of the object with the largest IoU, (M,); 0 without objects.
        is_positive: Whether the box is of this object, (M,).
        is_negative: Whether it is background, (M,).
    """

    number: Tensor
    is_positive: Tensor
    is_negative: Tensor


class Regions(NamedTuple):
    """Sampled regions of an image, those with an object first.

    Args:
        boxes: (M, 4).
        labels: Classes (M,), K for the background.
        numbers: Numbers of the objects (F,) of the first F regions.
    """

    boxes: Tensor
    labels: Tensor
    numbers: Tensor


def objects_of(sample: Any, window: Window, num_classes: int, like: Tensor) -> Objects:
    """Objects of a data sample, their boxes clipped to the image; those without area are omitted.

    Args:
        sample: Data sample with ``gt_instances``: ``bboxes``, ``labels``, ``masks`` and, where
            there are crowds, ``iscrowd``.
        window: The image without padding.
        num_classes: Number of classes K.
        like: Tensor of the device and the float type of the boxes.

    Raises:
        UserError: There are no objects, masks are smaller than the image, a box is not finite, or a
            label is no class.
    """
    instances = sample.get('gt_instances')
    if instances is None or 'masks' not in instances:
        raise UserError(
            'a training image has no objects with masks: use LoadPanoptic and '
            'PackPanopticInputs(instances=True) with a data set of panoptic or instance labels'
        )
    boxes = instances.bboxes.to(like).view(-1, 4)
    labels, masks = instances.labels.to(like.device).long(), instances.masks.to(like.device)
    _check(boxes, labels, masks, window, num_classes)
    boxes = clip(boxes, window)
    has_area = areas(boxes) > 0
    is_crowd = torch.zeros_like(has_area)
    if 'iscrowd' in instances:
        is_crowd = instances.iscrowd.to(like.device)
    chosen = has_area & ~is_crowd
    return Objects(boxes[chosen], labels[chosen], masks[chosen], boxes[has_area & is_crowd])


def _check(boxes: Tensor, labels: Tensor, masks: Tensor, window: Window, num_classes: int) -> None:
    height, width = window[3], window[2]
    if len(masks) and (masks.shape[1] < height or masks.shape[2] < width):
        raise UserError(
            f'masks of objects are {masks.shape[2]}x{masks.shape[1]} and their image is '
            f'{width:.0f}x{height:.0f}: both must have the same size'
        )
    if not boxes.is_cpu:
        return  # a training step does not wait for the device
    if not boxes.isfinite().all():
        raise UserError('a box of an object is NaN or infinite: repair the label')
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise UserError(
            f'an object has the label {int(wrong[0])}, but the classes are 0 to '
            f'{num_classes - 1}: correct the label or num_classes'
        )


def match(
    boxes: Tensor, objects: Tensor, positive: float, negative: float, *, best: bool = False
) -> Matches:
    """Boxes (M, 4) compared with the boxes of objects (G, 4).

    Args:
        boxes: Anchors or proposals.
        objects: Boxes of objects.
        positive: Least IoU of a positive box.
        negative: IoU below which a box is negative.
        best: Whether the boxes with the largest IoU with an object are positive too.
    """
    if not len(objects):
        nothing = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        return Matches(nothing.long(), nothing, ~nothing)
    iou = box_iou(objects, boxes)  # (G, M)
    largest, number = iou.max(0)
    is_positive, is_negative = largest >= positive, largest < negative
    if best:
        record = iou.amax(1, keepdim=True)
        is_record = ((iou == record) & (record > 0)).any(0)
        is_positive, is_negative = is_positive | is_record, is_negative & ~is_record
    return Matches(number, is_positive, is_negative)


def touches_crowd(boxes: Tensor, crowds: Tensor) -> Tensor:
    """Whether most of a box (M, 4) lies in a crowd (C, 4), (M,)."""
    if not len(crowds):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    inside = intersections(boxes, crowds) / areas(boxes).clamp(min=1e-9)[:, None]
    return (inside >= CROWD_OVERLAP).any(1)


def sample(
    is_positive: Tensor, is_negative: Tensor, count: int, fraction: float
) -> tuple[Tensor, Tensor]:
    """Numbers of random positive and negative boxes.

    Args:
        is_positive: (M,).
        is_negative: (M,).
        count: Number of all chosen boxes, where there are as many.
        fraction: Largest fraction of positive ones.
    """
    positive = _choose(is_positive, int(count * fraction))
    return positive, _choose(is_negative, count - len(positive))


def _choose(candidates: Tensor, count: int) -> Tensor:
    numbers = candidates.nonzero()[:, 0]
    return numbers[torch.randperm(len(numbers), device=numbers.device)[:count]]


def sample_regions(
    proposals: Tensor, objects: Objects, num_classes: int, settings: Training
) -> Regions:
    """Random proposals of an image, and objects, as regions with their classes.

    Args:
        proposals: (M, 4).
        objects: Objects of the image; their boxes are proposals too.
        num_classes: Number of classes K.
        settings: Numbers of regions and thresholds.
    """
    boxes = torch.cat([objects.boxes, proposals])
    threshold = settings.foreground_iou
    matched = match(boxes, objects.boxes, threshold, threshold)
    is_negative = matched.is_negative & ~touches_crowd(boxes, objects.crowds)
    positive, negative = sample(
        matched.is_positive, is_negative, settings.rois_per_image, settings.foreground_fraction
    )
    numbers = matched.number[positive]
    background = torch.full_like(negative, num_classes)
    labels = torch.cat([objects.labels[numbers], background])
    return Regions(boxes[torch.cat([positive, negative])], labels, numbers)


def mask_targets(boxes: Tensor, masks: Tensor, numbers: Tensor, size: int) -> Tensor:
    """Masks (F, R, R), bool, of the objects in the boxes of regions.

    A cell has the value of the pixel at its centre.

    Args:
        boxes: Boxes (F, 4) of the regions.
        masks: Masks (G, H, W), bool, of the objects of the image.
        numbers: Number of the object of each region, (F,).
        size: Number R of cells of each axis.
    """
    steps = (torch.arange(size, device=boxes.device) + 0.5) / size
    x, y = (
        (boxes[:, i, None] + steps * (boxes[:, i + 2, None] - boxes[:, i, None])).floor().long()
        for i in (0, 1)
    )
    height, width = masks.shape[1:]
    rows, columns = y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None]
    return masks[numbers[:, None, None], rows, columns]
