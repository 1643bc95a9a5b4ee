"""Instances of an image: boxes and masks of its regions, pasted into the image."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from ...layers.sizes import Size, padding_of, size_of
from .boxes import Window, clip, decode, nms
from .settings import Inference

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the deltas of the box head


class Detections(NamedTuple):
    """Instances of an image from the highest score down.

    Args:
        boxes: (M, 4).
        scores: (M,), in [0, 1].
        labels: Class indices (M,).
        masks: Probabilities (M, R, R) in the boxes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor

    def moved(self, meta: Mapping[str, Any], size: Size) -> 'Detections':
        """The instances in the image file.

        Args:
            meta: Meta of the image: padding, ``img_shape``, ``ori_shape`` and flip.
            size: Size (H, W) of the input, for what ``meta`` lacks.
        """
        left, _, top, _ = padding_of(meta)
        height, width = meta.get('img_shape', size)[:2]
        file_height, file_width = meta.get('ori_shape', (height, width))[:2]
        scale = self.boxes.new_tensor([file_width / width, file_height / height]).repeat(2)
        boxes = (self.boxes - self.boxes.new_tensor([left, top, left, top])) * scale
        masks = self.masks
        if meta.get('flip'):
            axis = 0 if meta.get('flip_direction') == 'horizontal' else 1  # x or y
            length = (file_width, file_height)[axis]
            boxes = boxes.clone()
            boxes[:, [axis, axis + 2]] = length - boxes[:, [axis + 2, axis]]
            masks = masks.flip(2 - axis)
        return self._replace(boxes=boxes, masks=masks)


def windows_of(metas: Sequence[Mapping[str, Any]], size: Size) -> list[Window]:
    """The part without padding of each input of ``size`` (H, W)."""
    windows: list[Window] = []
    for meta in metas:
        left, _, top, _ = padding_of(meta)
        h, w = meta.get('img_shape', size)[:2]
        windows.append((left, top, min(left + w, size[1]), min(top + h, size[0])))
    return windows


def select(
    proposals: Tensor, logits: Tensor, deltas: Tensor, window: Window, settings: Inference
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (M, 4), scores (M,) and classes (M,) of the instances among the regions of an image.

    Args:
        proposals: Boxes (P, 4) of the regions.
        logits: Class logits (P, K + 1), background last.
        deltas: (P, K + 1, 4).
        window: The image without padding.
        settings: Thresholds and the number of instances.
    """
    scores = logits.softmax(1)[:, :-1]
    region, label = (scores > settings.score_threshold).nonzero().unbind(1)
    scores = scores[region, label]
    boxes = clip(decode(proposals[region], deltas[region, label], BOX_WEIGHTS), window)
    chosen = nms(boxes, scores, label, settings.iou_threshold)[: settings.max_instances]
    return boxes[chosen], scores[chosen], label[chosen]


def paste(detections: Detections, size: Size) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows, columns and probabilities (h, w) of the pixels in the box of each instance.

    Args:
        detections: Instances in an image.
        size: Size (H, W) of the image.
    """
    for box, mask in zip(detections.boxes.tolist(), detections.masks, strict=True):
        axes, slices = [], []
        for low, high, length in zip(box[:2], box[2:], (size[1], size[0]), strict=True):
            first, last = max(int(low), 0), min(int(-(-high // 1)), length)
            pixels = torch.arange(first, max(last, first), device=mask.device) + 0.5
            axes.append(2 * (pixels.to(mask) - low) / max(high - low, 1e-6) - 1)
            slices.append(slice(first, max(last, first)))
        x, y = axes
        grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], 2)
        if grid.numel():
            mask = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
        else:
            mask = grid[..., 0]
        yield slices[1], slices[0], mask


def as_instance_data(detections: Detections, size: Size, threshold: float) -> InstanceData:
    """Instances with ``masks`` (M, H, W), bool, ``labels``, ``scores`` and ``bboxes`` (M, 4).

    Args:
        detections: Instances in an image.
        size: Size (H, W) of the image.
        threshold: Least probability of a pixel in a mask.
    """
    count = len(detections.scores)
    masks = torch.zeros(count, *size, dtype=torch.bool, device=detections.masks.device)
    for mask, (rows, columns, probs) in zip(masks, paste(detections, size), strict=True):
        mask[rows, columns] = probs >= threshold
    boxes = clip(detections.boxes, (0, 0, size[1], size[0]))
    return InstanceData(
        masks=masks, labels=detections.labels, scores=detections.scores, bboxes=boxes
    )


def semantic_scores(detections: Detections, num_classes: int, size: Size) -> Tensor:
    """Score of each class, (K, H, W): the largest product of score and mask of its instances.

    Args:
        detections: Instances in an image.
        num_classes: Number of classes K.
        size: Size (H, W) of the image.
    """
    scores = detections.masks.new_zeros(num_classes, *size)
    labels, weights = detections.labels.tolist(), detections.scores
    pasted = paste(detections, size)
    for label, weight, (rows, columns, probs) in zip(labels, weights, pasted, strict=True):
        region = scores[label, rows, columns]
        scores[label, rows, columns] = torch.maximum(region, weight * probs)
    return scores


def scaled(detections: Detections, source: Size, size: Size) -> Detections:
    """Instances of an image of size ``source`` in the image of another size."""
    (h, w), (height, width) = source, size
    factor = detections.boxes.new_tensor([width / w, height / h]).repeat(2)
    return detections._replace(boxes=detections.boxes * factor)


def file_size(meta: Mapping[str, Any], inputs: Tensor) -> Size:
    """Size (H, W) of the image file, that of the input (N, C, H, W) where the meta has none."""
    h, w = meta.get('ori_shape', meta.get('img_shape', size_of(inputs)))[:2]
    return h, w
