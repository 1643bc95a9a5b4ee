"""Labels of segments and predictions near them, for the tests of metrics and pictures."""

from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_ext.datasets.panoptic.transforms import boxes_of_masks

Label = tuple[np.ndarray, list[dict[str, Any]]]
META = dict(classes=('wall', 'cat', 'dog', 'sky'), thing_classes=(1, 2))


def random_label(seed: int, size: tuple[int, int] = (40, 60)) -> Label:
    """Boxes of random classes over each other: stuff, things, one crowd, and void."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(size, np.int32)
    segments: list[dict[str, Any]] = []
    for number, category in enumerate((0, 3, 1, 1, 1, 2, 2, 2)):
        top, left = rng.integers(0, [size[0] - 8, size[1] - 8])
        height, width = rng.integers(6, [size[0] // 2, size[1] // 2])
        value = int(rng.integers(1, 2**24))
        ids[top : top + height, left : left + width] = value
        segments.append(
            dict(id=value, category_id=category, isthing=category in (1, 2), iscrowd=number == 7)
        )
    present = set(np.unique(ids))
    return ids, [item for item in segments if item['id'] in present]


def perturbed(label: Label, seed: int, num_classes: int = 4, reach: int = 4) -> Label:
    """A prediction: the label, moved by some pixels, with wrong classes and lost segments."""
    rng = np.random.default_rng(seed)
    ids = np.roll(label[0], tuple(rng.integers(-reach, reach + 1, 2)), (0, 1))
    segments = []
    for number, item in enumerate(label[1], 1):
        mask, chance = ids == item['id'], rng.random()
        ids[mask] = 0 if chance < 0.1 else -number
        category = item['category_id']
        if chance > 0.85:
            category = int(rng.integers(num_classes))
        segments.append(dict(id=number, category_id=category, isthing=True, score=float(chance)))
    present = set(np.unique(-ids))
    return -ids, [item for item in segments if item['id'] in present]


def instances_of(pred: Label) -> InstanceData:
    ids, segments = pred
    masks = np.array([ids == item['id'] for item in segments], bool).reshape(-1, *ids.shape)
    tensor: Tensor = torch.from_numpy(masks)
    return InstanceData(
        masks=tensor,
        labels=torch.tensor([item['category_id'] for item in segments], dtype=torch.long),
        scores=torch.tensor([item['score'] for item in segments]),
        bboxes=boxes_of_masks(tensor),
    )


def data_sample(label: Label, pred: Label) -> SegDataSample:
    """Sample of a label and of a prediction, as a model of panoptic segmentation leaves it."""
    sample = SegDataSample(metainfo=dict(segments_info=label[1]))
    sample.gt_panoptic_seg = PixelData(panoptic_seg=torch.from_numpy(label[0])[None])
    sample.pred_panoptic_seg = PixelData(
        panoptic_seg=torch.from_numpy(pred[0])[None], metainfo=dict(segments_info=pred[1])
    )
    sample.pred_instances = instances_of(pred)
    return sample
