"""Labels of the scenes in COCO's forms: panoptic png + json, and the json of instances.

Categories have Cityscapes' label ids, and segments have the values of Cityscapes' instanceIds.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...errors import UserError
from ..cityscapes import LABEL_IDS, CityscapesIdsDataset
from .scene import FIRST_THING

FOLDER = 'annotations'  # beside leftImg8bit, as in COCO
META = CityscapesIdsDataset.METAINFO
CATEGORIES = [
    dict(id=i, name=name, isthing=int(i >= FIRST_THING), color=color, supercategory='')
    for i, name, color in zip(LABEL_IDS, META['classes'], META['palette'], strict=True)
]


class CocoLabels:
    """Labels of one split, which are written image by image.

    Args:
        root: Folder of the data set.
        split: Name of the split; the files are ``annotations/panoptic_<split>/*.png`` and, beside
            this folder, ``panoptic_<split>.json`` and ``instances_<split>.json``.
    """

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = root / FOLDER, split
        self.images: list[dict] = []
        self.panoptic: list[dict] = []
        self.instances: list[dict] = []

    def add(self, file_name: str, instance_ids: np.ndarray) -> None:
        """Adds an image.

        Args:
            file_name: Path of the image below the folder of its split.
            instance_ids: Cityscapes' instanceIds, uint16 (h, w).

        Raises:
            UserError: The file cannot be written.
        """
        number = len(self.images)
        height, width = instance_ids.shape
        self.images.append(dict(id=number, file_name=file_name, height=height, width=width))
        segments, ids = [], np.zeros_like(instance_ids)
        for value in np.unique(instance_ids).tolist():
            category = value if value < 1000 else value // 1000
            if category not in LABEL_IDS:
                continue
            mask = instance_ids == value
            ids[mask] = value
            is_thing = category >= FIRST_THING
            segment: dict[str, Any] = dict(
                id=value,
                category_id=category,
                iscrowd=int(is_thing and value < 1000),
                area=int(mask.sum()),
                bbox=cv2.boundingRect(mask.astype(np.uint8)),
            )
            segments.append(segment)
            if is_thing:
                self.instances.append(
                    dict(
                        segment,
                        id=len(self.instances) + 1,
                        image_id=number,
                        segmentation=dict(size=[height, width], counts=run_lengths(mask)),
                    )
                )
        png = f'{Path(file_name).stem}.png'
        self.panoptic.append(dict(image_id=number, file_name=png, segments_info=segments))
        path = self.root / f'panoptic_{self.split}' / png
        path.parent.mkdir(parents=True, exist_ok=True)
        # The red channel, OpenCV's last, holds the lowest 8 bits.
        colors = np.stack([np.zeros_like(ids), ids >> 8, ids & 255], -1).astype(np.uint8)
        if not cv2.imwrite(str(path), colors):
            raise UserError(f'{path} could not be written: is the disk full?')

    def finish(self) -> None:
        """Writes both json files."""
        contents = {
            f'panoptic_{self.split}.json': (self.panoptic, CATEGORIES),
            f'instances_{self.split}.json': (
                self.instances,
                [category for category in CATEGORIES if category['isthing']],
            ),
        }
        for name, (annotations, categories) in contents.items():
            content = dict(images=self.images, annotations=annotations, categories=categories)
            (self.root / name).write_text(json.dumps(content))


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's run lengths of a mask (h, w), bool: zeros and ones in turn, column by column."""
    values = mask.T.ravel()
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff([0, *changes.tolist(), values.size]).tolist()
    return [0, *lengths] if values[0] else lengths
