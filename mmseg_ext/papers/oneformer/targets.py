"""Targets of a task from one panoptic annotation, or from a semantic label (Sec. 3.1)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.registry import TRANSFORMS
from mmseg.structures import SegDataSample
from torch import Tensor

from ...errors import UserError
from ...layers.sizes import Size, size_of
from .text import TASKS


class Targets(NamedTuple):
    """Targets of an image. They share no pixel, so a single map holds all of their masks.

    ``task`` is the task, ``labels`` the class index of each target, and ``numbers`` (H, W), int16,
    the number of the target of each pixel, -1 where there is none.
    """

    task: str
    labels: list[int]
    numbers: Tensor

    def masks(self, size: Size) -> Tensor:
        """Masks (number of targets, h, w), bool; pixels beyond the map belong to no target."""
        h, w = size_of(self.numbers)
        padded = F.pad(self.numbers, (0, size[1] - w, 0, size[0] - h), value=-1)
        number = torch.arange(len(self.labels), device=padded.device, dtype=padded.dtype)
        return padded == number[:, None, None]


def panoptic_targets(
    panoptic: Tensor, segments_info: Sequence[Mapping[str, Any]], task: str
) -> Targets:
    """Targets of a task from segments.

    - semantic: all segments of a class together, in the order in which classes appear;
    - instance: each segment of a thing;
    - panoptic: each segment.

    Crowds, and segments without a pixel, are no targets.

    Args:
        panoptic: Id of the segment of each pixel, (H, W); 0 for none.
        segments_info: ``id``, ``category_id`` (class index), ``isthing`` and ``iscrowd`` of each
            segment.
        task: One of ``TASKS``.

    Raises:
        UserError: A pixel has an id that ``segments_info`` lacks.
    """
    ids, inverse = np.unique(panoptic.cpu().numpy(), return_inverse=True)
    row_of = {int(value): row for row, value in enumerate(ids)}
    missing = row_of.keys() - {segment['id'] for segment in segments_info} - {0}
    if missing:
        raise UserError(
            f'the panoptic label holds the id {min(missing)}, which segments_info lacks: repair '
            'the annotation of the image'
        )
    table, labels = np.full(len(ids), -1, np.int16), []  # type: np.ndarray, list[int]
    number_of: dict[Any, int] = {}
    for segment in segments_info:
        is_left_out = task == 'instance' and not segment['isthing']
        if segment['id'] not in row_of or segment.get('iscrowd') or is_left_out:
            continue
        key = segment['category_id'] if task == 'semantic' else ('segment', segment['id'])
        if key not in number_of:
            number_of[key] = len(labels)
            labels.append(int(segment['category_id']))
        table[row_of[segment['id']]] = number_of[key]
    numbers = torch.from_numpy(table[inverse.reshape(panoptic.shape)])
    return Targets(task, labels, numbers.to(panoptic.device))


def semantic_targets(label: Tensor, ignore_index: int = 255) -> Targets:
    """A target for each class of a label (H, W), ordered by class."""
    classes, inverse = np.unique(label.cpu().numpy(), return_inverse=True)
    table = np.where(classes == ignore_index, -1, np.arange(len(classes))).astype(np.int16)
    if ignore_index in classes:
        table[classes > ignore_index] -= 1
    numbers = torch.from_numpy(table[inverse.reshape(label.shape)]).to(label.device)
    return Targets('semantic', [int(c) for c in classes if c != ignore_index], numbers)


@TRANSFORMS.register_module()
class OneFormerTargets(BaseTransform):
    """Draws the task of an image and makes its targets; it follows ``PackSegInputs``.

    A sample with ``gt_panoptic_seg`` gets the targets of a random task. A sample with a semantic
    label only always has the task 'semantic'.

    Args:
        task_probs: Probabilities of 'semantic', 'instance' and 'panoptic', as released; the paper
            has a third each.
        ignore_index: Label of ignored pixels.

    Raises:
        UserError: The probabilities do not sum to 1, or semantic-only data shall have another
            task.
    """

    def __init__(
        self, task_probs: Sequence[float] = (0.33, 0.33, 0.34), ignore_index: int = 255
    ) -> None:
        if len(task_probs) != 3 or min(task_probs) < 0 or abs(sum(task_probs) - 1) > 1e-6:
            raise UserError(
                f'task_probs={tuple(task_probs)} must be the probabilities of semantic, instance '
                'and panoptic, which sum to 1'
            )
        self.task_probs = tuple(task_probs)
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        add_targets(results['data_samples'], self.draw(results['data_samples']))
        return results

    def draw(self, sample: SegDataSample) -> Targets:
        """Targets of a random task."""
        if 'gt_panoptic_seg' not in sample:
            if not self.task_probs[0]:
                raise UserError(
                    'the data has semantic labels only, but task_probs never draws the task '
                    'semantic: load panoptic labels or change task_probs'
                )
            return semantic_targets(sample.gt_sem_seg.data[0], self.ignore_index)
        draw = np.random.uniform()
        number = int(np.searchsorted(np.cumsum(self.task_probs)[:2], draw, side='right'))
        panoptic = sample.gt_panoptic_seg.panoptic_seg[0]
        return panoptic_targets(panoptic, sample.segments_info, TASKS[number])

    def __repr__(self) -> str:
        return f'OneFormerTargets(task_probs={self.task_probs})'


def add_targets(sample: SegDataSample, targets: Targets) -> None:
    """Stores targets in a data sample, where ``targets_of`` finds them."""
    sample.set_metainfo(dict(task=targets.task, target_labels=targets.labels))
    sample.set_data(dict(gt_targets=PixelData(numbers=targets.numbers[None])))


def targets_of(sample: SegDataSample, draw: OneFormerTargets) -> Targets:
    """Targets that the transform stored in a sample, else those that ``draw`` draws now."""
    if 'gt_targets' not in sample:
        return draw.draw(sample)
    return Targets(sample.task, sample.target_labels, sample.gt_targets.numbers[0])
