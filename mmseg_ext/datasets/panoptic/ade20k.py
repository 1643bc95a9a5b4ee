"""ADE20K's segments, from the two downloads of scene parsing and of its instances."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine import fileio
from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS

from ...errors import UserError
from ..folder import FolderDataset
from ..transforms import IGNORE_INDEX, LoadSegMap, class_table
from .ade20k_names import FULL_NAMES
from .cityscapes import thing_classes_of
from .labels import PanopticLabel, decode_colors, label_of_values, segment

STUFF = (
    *(0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59),
    *(60, 61, 63, 68, 77, 79, 84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122),
    *(128, 131, 140, 141, 145),
)
# Classes of the categories 1 to 100 of the instances, in this order.
THINGS = tuple(i for i in range(150) if i not in STUFF)
FIRST_THING = 256  # segment id of an object: 256 category + number; of stuff: class + 1


@dataclass(frozen=True)
class AdeFiles:
    """Label of scene parsing (0 is no class) with the label of the instances.

    Red holds the category of an object, 1 to 100, and green its number. A segment of stuff has all
    pixels of its class that no object covers. Pixels of a thing class without an object are void,
    and keep their class for semantic segmentation.

    Args:
        path: Path of the label of scene parsing.
        instance_path: Path of the label of the instances.
        chosen: The host's map to chosen classes; None for all.
        backend_args: Arguments of the host's file backend.
    """

    path: str
    instance_path: str
    chosen: Mapping[int, int] | None
    backend_args: dict | None = None

    def read(self) -> PanopticLabel:
        raw: dict[str, Any] = dict(seg_map_path=self.path, seg_fields=[])
        loader = LoadSegMap(backend_args=self.backend_args)
        full = loader({**raw, 'label_map': None, 'reduce_zero_label': True})['gt_seg_map']
        colors = decode_colors(self.instance_path, 'an instance label', self.backend_args)
        if colors.shape != full.shape:
            raise UserError(
                f'{self.instance_path} is {colors.shape[::-1]} and {self.path} is '
                f'{full.shape[::-1]}: both must have the same size'
            )
        category, number = colors & 255, colors >> 8 & 255
        if category.max(initial=0) > len(THINGS):
            raise UserError(
                f'{self.instance_path} has the category {category.max()} in red, but the '
                f'categories are 1 to {len(THINGS)}: give the labels of annotations_instance'
            )
        is_stuff = np.isin(full, STUFF)
        values = np.where(is_stuff, full.astype(np.int32) + 1, 0)
        values = np.where(category > 0, FIRST_THING * category + number, values)
        table = class_table(dict(self.chosen) if self.chosen else None)
        segments = []
        for value in np.flatnonzero(np.bincount(values.ravel())).tolist():
            thing = value >= FIRST_THING
            kind = table[THINGS[value // FIRST_THING - 1] if thing else value - 1]
            if value and kind != IGNORE_INDEX:
                segments.append(segment(value, int(kind), thing=thing))
        return label_of_values(values, segments, table[full])


@DATASETS.register_module()
class ADE20KPanopticDataset(FolderDataset):
    """ADE20K's 150 classes, 100 of them things, as downloaded.

    The metainfo also has ``full_names``, the names of the classes with synonyms.

    Args:
        data_prefix: Folders by name: ``img_path`` (``images/training``), ``seg_map_path``
            (``annotations/training``) and ``instance_path`` (``annotations_instance/training``,
            from ``annotations_instance.tar`` of the Places Challenge 2017).
        metainfo: Classes to use; pixels of other classes become void.
        **kwargs: Arguments of ``FolderDataset``.

    Raises:
        UserError: See ``FolderDataset``, or the folder of the instances does not exist.
    """

    METAINFO = {
        **ADE20KDataset.METAINFO,
        'thing_classes': THINGS,
        'full_names': FULL_NAMES,
    }

    def __init__(
        self, *, data_prefix: dict[str, str], metainfo: dict | None = None, **kwargs: Any
    ) -> None:
        metainfo = dict(metainfo or {})
        if 'classes' in metainfo:
            names = self.METAINFO['classes']
            things = [names[i] for i in THINGS]
            full = dict(zip(names, FULL_NAMES, strict=True))
            metainfo['thing_classes'] = thing_classes_of(metainfo['classes'], things)
            metainfo['full_names'] = tuple(full.get(name, name) for name in metainfo['classes'])
        super().__init__(
            data_prefix=data_prefix,
            metainfo=metainfo,
            img_suffix='.jpg',
            reduce_zero_label=True,
            **kwargs,
        )

    def advice(self) -> str:
        return (
            'unpack ADEChallengeData2016.zip and, in it, annotations_instance.tar of the Places '
            'Challenge 2017, and name the folder with data_root (--data-root)'
        )

    def load_data_list(self) -> list[dict]:
        folder = self.data_prefix.get('instance_path')
        if 'seg_map_path' in self.data_prefix and (
            folder is None or not fileio.exists(folder, backend_args=self.backend_args)
        ):
            raise UserError(f'{folder}, the folder of the instances, is missing: {self.advice()}')
        return super().load_data_list()

    def _item(self, stem: str, name: str, has_labels: bool) -> dict:
        item = super()._item(stem, name, has_labels)
        if has_labels:
            instances = f'{self.data_prefix["instance_path"]}/{stem}{self.seg_map_suffix}'
            item['panoptic'] = AdeFiles(
                item['seg_map_path'], instances, self.label_map, self.backend_args
            )
        return item
