"""Loading and packing of labels with segments."""

from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import Pad
from mmengine.structures import InstanceData, PixelData
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from mmseg.registry import TRANSFORMS
from torch import Tensor

from ...errors import UserError
from ..transforms import IGNORE_INDEX
from .labels import VOID, PanopticLabel, slots_of, table_of_slots

MASK = 'gt_mask_{}'  # key of the mask of a segment
PACKED = ('id', 'category_id', 'isthing', 'iscrowd')  # keys of a segment


@TRANSFORMS.register_module()
class LoadPanoptic(LoadAnnotations):
    """Reads segments and the classes of their pixels; transforms treat both as the host's labels.

    It adds ``gt_seg_map`` (uint8), ``gt_pan_map`` (slots of the segments, uint16) and ``segments``;
    for labels that overlap also a map with the mask of each segment. All maps are in
    ``seg_fields``, so that resizing, cropping, flipping, rotating and padding apply to them. A
    padded pixel is void.

    Raises:
        UserError: The data set has semantic labels only, a file is missing or wrong, or the label
            and the image differ in size.
    """

    def __init__(self) -> None:
        super().__init__()

    def _load_seg_map(self, results: dict) -> None:
        path = results.get('seg_map_path') or results.get('img_path')
        if 'panoptic' not in results:
            raise UserError(
                f'{path}: the data set has semantic labels only, and LoadPanoptic needs segments: '
                'use LoadSegMap and the semantic task, or a data set with panoptic labels'
            )
        label: PanopticLabel = results['panoptic'].read()
        size = results.get('ori_shape', label.slots.shape)
        if label.slots.shape != size:
            raise UserError(
                f'the label of {results["img_path"]} is {_size(label.slots.shape)} and the image '
                f'is {_size(size)}: both must have the same size'
            )
        classes = table_of_slots(
            [item['category_id'] for item in label.segments], IGNORE_INDEX, np.uint8
        )
        maps = {
            'gt_seg_map': classes[label.slots] if label.semantic is None else label.semantic,
            'gt_pan_map': label.slots,
            **{MASK.format(i): mask for i, mask in enumerate(label.masks or ())},
        }
        results.update(maps, segments=label.segments, overlap=label.masks is not None)
        results['seg_fields'].extend(maps)

    def __repr__(self) -> str:
        return 'LoadPanoptic()'


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}x{shape[0]}'


@TRANSFORMS.register_module()
class PadPanoptic(Pad):
    """``Pad`` of all maps of a label, with void; MMCV's own pads the classes alone."""

    def _pad_seg(self, results: dict) -> None:
        for key in results.get('seg_fields', ()):
            results[key] = mmcv.impad(
                results[key],
                shape=results['pad_shape'][:2],
                pad_val=VOID,
                padding_mode=self.padding_mode,
            )


@TRANSFORMS.register_module()
class PackPanopticInputs(PackSegInputs):
    """Packs as ``PackSegInputs`` and adds segments, where ``LoadPanoptic`` has read some.

    - ``gt_panoptic_seg``: ``PixelData`` with ``panoptic_seg``, the segment id of each pixel, int32
      (1, H, W); 0 is void.
    - metainfo ``segments_info``: the segments that have pixels in this map, as dicts ``id``,
      ``category_id`` (class index), ``isthing`` and ``iscrowd``.
    - ``gt_instances``: ``InstanceData`` with ``masks`` (M, H, W), bool, ``labels`` (M,), ``bboxes``
      (M, 4) as (x1, y1, x2, y2) in pixels, and ``iscrowd`` (M,), bool. Its objects are the things
      with pixels; objects of COCO's json of instances may overlap, and have ``coco``, the ``area``
      and ``bbox`` of the json, which are of the image in the file.

    Args:
        instances: Whether to add ``gt_instances`` where the segments do not overlap; where they
            overlap, it is always added.
        **kwargs: Arguments of ``PackSegInputs``.

    Raises:
        UserError: A transform has changed the size of the classes and not of the segments.
    """

    def __init__(self, *, instances: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.instances = instances

    def transform(self, results: dict) -> dict:
        """Packed inputs; see the class."""
        packed = super().transform(results)
        if 'gt_pan_map' not in results:
            return packed
        sample, slots = packed['data_samples'], results['gt_pan_map']
        if slots.shape != results['gt_seg_map'].shape:
            raise UserError(
                f'the classes are {_size(results["gt_seg_map"].shape)} and the segments '
                f'{_size(slots.shape)}: use PadPanoptic in place of Pad'
            )
        segments = results['segments']
        numbers = slots_of(len(segments))
        present = np.bincount(slots.ravel(), minlength=len(segments) + 2) > 0
        visible = [
            {key: item[key] for key in PACKED}
            for item, n in zip(segments, numbers, strict=True)
            if present[n]
        ]
        ids = table_of_slots([item['id'] for item in segments], 0, np.int32)
        sample.gt_panoptic_seg = PixelData(panoptic_seg=torch.from_numpy(ids[slots])[None])
        sample.set_metainfo(dict(segments_info=visible))
        if results['overlap'] or self.instances:
            masks = (
                [results[MASK.format(i)] == 1 for i in range(len(segments))]
                if results['overlap']
                else [slots == n for n in numbers]
            )
            sample.gt_instances = _instances(segments, masks, slots.shape)
        return packed


def _instances(
    segments: list[dict[str, Any]], masks: list[np.ndarray], size: tuple[int, ...]
) -> InstanceData:
    chosen = [i for i, item in enumerate(segments) if item['isthing'] and masks[i].any()]
    stacked = np.stack([masks[i] for i in chosen]) if chosen else np.zeros((0, *size), bool)
    tensor = torch.from_numpy(stacked)
    instances = InstanceData(
        masks=tensor,
        labels=torch.tensor([segments[i]['category_id'] for i in chosen], dtype=torch.long),
        bboxes=boxes_of_masks(tensor),
        iscrowd=torch.tensor([segments[i]['iscrowd'] for i in chosen], dtype=torch.bool),
    )
    if all('coco' in item for item in segments):
        instances.coco = [segments[i]['coco'] for i in chosen]
    return instances


def boxes_of_masks(masks: Tensor) -> Tensor:
    """Boxes (M, 4), float32, as (x1, y1, x2, y2) around non-empty masks (M, H, W), bool."""
    edges = []
    for axis in (1, 2):  # columns, then rows
        hit = masks.any(axis).float()
        length = hit.shape[1]
        first = hit.argmax(1) if length else hit.sum(1)
        last = length - hit.flip(1).argmax(1) if length else hit.sum(1)
        edges.append((first, last))
    (x1, x2), (y1, y2) = edges
    return torch.stack([x1, y1, x2, y2], 1).float()
