"""Cityscapes' segments, from the instanceIds of its download."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine import fileio
from mmseg.registry import DATASETS

from ...errors import UserError
from ..cityscapes import LABEL_ID_MAP, CityscapesIdsDataset
from ..transforms import IGNORE_INDEX
from .labels import PanopticLabel, label_of_values, read_label_file, segment

SUFFIX = '_gtFine_instanceIds.png'
THINGS = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')


def thing_classes_of(classes: Sequence[str], things: Sequence[str]) -> tuple[int, ...]:
    """Indices of the classes that are things."""
    return tuple(i for i, name in enumerate(classes) if name in things)


@dataclass(frozen=True)
class InstanceIds:
    """Cityscapes' instanceIds: 1000 labelId + number for an object, else the labelId.

    As in Cityscapes' own preparation, a thing without a number is a crowd: a group of objects.

    Args:
        path: Path of the png of 16 bits.
        classes: Class of each labelId; 255 is void.
        things: Classes that are things.
        backend_args: Arguments of the host's file backend.
    """

    path: str
    classes: Mapping[int, int]
    things: tuple[int, ...]
    backend_args: dict | None = None

    def read(self) -> PanopticLabel:
        values = read_label_file(self.path, 'an instanceIds label', self.backend_args)
        if values.ndim != 2:
            raise UserError(f'{self.path} has colours: give instanceIds, of one channel')
        segments = []
        for value in np.flatnonzero(np.bincount(values.ravel())).tolist():
            category = self.classes.get(value if value < 1000 else value // 1000, IGNORE_INDEX)
            if category != IGNORE_INDEX:
                thing = category in self.things
                crowd = thing and value < 1000
                segments.append(segment(value, category, thing=thing, crowd=crowd))
        return label_of_values(values, segments)


@DATASETS.register_module()
class CityscapesPanopticDataset(CityscapesIdsDataset):
    """Cityscapes as downloaded, with the segments of its instanceIds.

    Args:
        seg_map_suffix: Ending of a label's file name.
        metainfo: Classes to use; pixels of other classes become void.
        **kwargs: Arguments of ``CityscapesIdsDataset``.

    Raises:
        UserError: See ``FolderDataset``, or the first image has no instanceIds.
    """

    METAINFO = {
        **CityscapesIdsDataset.METAINFO,
        'thing_classes': thing_classes_of(CityscapesIdsDataset.METAINFO['classes'], THINGS),
    }

    def __init__(
        self, *, seg_map_suffix: str = SUFFIX, metainfo: dict | None = None, **kwargs: Any
    ) -> None:
        metainfo = dict(metainfo or {})
        if 'classes' in metainfo:
            metainfo['thing_classes'] = thing_classes_of(metainfo['classes'], THINGS)
        super().__init__(seg_map_suffix=seg_map_suffix, metainfo=metainfo, **kwargs)

    def find_label(self, stem: str) -> tuple[str, dict[int, int]]:
        return self.label_path(stem, self.seg_map_suffix), LABEL_ID_MAP

    def load_data_list(self) -> list[dict]:
        items = super().load_data_list()
        first = items[0].get('seg_map_path')
        if first is not None and not fileio.exists(first, backend_args=self.backend_args):
            raise UserError(
                f'{first}, the instances of the first image, does not exist: {self.advice()}'
            )
        return items

    def _item(self, stem: str, name: str, has_labels: bool) -> dict:
        item = super()._item(stem, name, has_labels)
        if has_labels:
            things = tuple(self._metainfo['thing_classes'])
            item['panoptic'] = InstanceIds(
                item['seg_map_path'], item['label_map'], things, self.backend_args
            )
        return item
