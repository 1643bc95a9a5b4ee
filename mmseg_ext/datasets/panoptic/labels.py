"""Labels with segments, and the files that they are read from.

During the transforms a map of segments holds, at each pixel, the slot of a segment. The slot is its
position in the list of segments, except that ``VOID`` is no slot: transforms pad maps with this
value, as they do for classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from mmengine import fileio

from ...errors import UserError, import_extra
from ..transforms import IGNORE_INDEX, naming

VOID = IGNORE_INDEX
MAX_SEGMENTS = 2**16 - 2  # OpenCV rotates uint16 exactly as the uint8 of classes, int16 not


class PanopticLabel(NamedTuple):
    """The segments of an image.

    Args:
        slots: Slot of the segment at each pixel, uint16 (H, W); ``VOID`` without a segment.
        segments: Dicts ``id``, ``category_id`` (class index), ``isthing`` and ``iscrowd``.
        semantic: Class of each pixel, uint8 (H, W); None for the class of its segment.
        masks: Mask of each segment, uint8 (H, W), where segments overlap; None if they do not.
    """

    slots: np.ndarray
    segments: list[dict[str, Any]]
    semantic: np.ndarray | None = None
    masks: list[np.ndarray] | None = None


class PanopticSource(Protocol):
    """Files with the segments of one image."""

    def read(self) -> PanopticLabel:
        """Reads the files.

        Raises:
            UserError: A file is missing or holds something else.
        """


def segment(value: int, category: int, *, thing: bool, crowd: bool = False) -> dict[str, Any]:
    """Dict of a segment, as it is packed."""
    return dict(id=value, category_id=category, isthing=thing, iscrowd=crowd)


def slots_of(count: int) -> np.ndarray:
    """Slots of ``count`` segments, uint16.

    Raises:
        UserError: There are too many segments.
    """
    if count > MAX_SEGMENTS:
        raise UserError(f'an image has {count} segments: use images of at most {MAX_SEGMENTS}')
    slots = np.arange(count, dtype=np.uint16)
    slots[slots >= VOID] += 1
    return slots


def table_of_slots(values: Sequence[Any], void: Any, dtype: Any) -> np.ndarray:
    """Table from a slot to the value of its segment, and from ``VOID`` to ``void``."""
    table = np.full(max(len(values), VOID) + 1, void, dtype)
    table[slots_of(len(values))] = values
    return table


def read_label_file(path: str, content: str, backend_args: dict | None = None) -> np.ndarray:
    """Values of a label file, (H, W) or (H, W, 3) in BGR, of 8 or 16 bits.

    Args:
        path: Path of the file.
        content: Words for the expected content, such as "a panoptic label".
        backend_args: Arguments of the host's file backend.

    Raises:
        UserError: The file does not exist or cannot be decoded.
    """
    if not fileio.exists(path, backend_args=backend_args):
        raise UserError(f'{path}, {content}, does not exist: restore it or remove its image')
    with naming(path, content):
        data = np.frombuffer(fileio.get(path, backend_args=backend_args), np.uint8)
        label = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        assert label is not None  # cv2 returns None if it cannot decode
    return label


def decode_colors(path: str, content: str, backend_args: dict | None = None) -> np.ndarray:
    """Values R + 256 G + 65536 B, int32 (H, W), of a label file with colours.

    Raises:
        UserError: The file does not exist, cannot be decoded or has no colours.
    """
    colors = read_label_file(path, content, backend_args)
    if colors.ndim != 3 or colors.dtype != np.uint8:
        raise UserError(f'{path} has no red, green and blue of 8 bits, but {content} needs them')
    blue, green, red = (colors[..., i].astype(np.int32) for i in range(3))
    return red + 256 * green + 65536 * blue


def label_of_values(
    values: np.ndarray, segments: list[dict[str, Any]], semantic: np.ndarray | None = None
) -> PanopticLabel:
    """Label of a map (H, W) of segment ids, integers from 0; all other ids are void."""
    table = np.full(int(values.max(initial=0)) + 1, VOID, np.uint16)
    for slot, item in zip(slots_of(len(segments)), segments, strict=True):
        table[item['id']] = slot
    return PanopticLabel(table[values], segments, semantic)


@dataclass(frozen=True)
class PanopticPng:
    """COCO's panoptic png with its segments from the json.

    Args:
        path: Path of the png.
        json_path: Path of the json, for errors.
        segments: Segments of the chosen classes.
        others: Ids of the segments of other classes, which become void.
        backend_args: Arguments of the host's file backend.
    """

    path: str
    json_path: str
    segments: list[dict[str, Any]]
    others: tuple[int, ...] = ()
    backend_args: dict | None = None

    def read(self) -> PanopticLabel:
        ids = decode_colors(self.path, 'a panoptic label', self.backend_args)
        listed = np.array([0, *self.others, *(item['id'] for item in self.segments)])
        void = [VOID] * (1 + len(self.others))
        slots = np.array([*void, *slots_of(len(self.segments))], np.uint16)
        order = np.argsort(listed, kind='stable')
        position = np.searchsorted(listed[order], ids).clip(max=len(listed) - 1)
        position = order[position]
        unknown = listed[position] != ids
        if unknown.any():
            raise UserError(
                f'{self.path} holds the segment id {ids[unknown][0]}, which {self.json_path} does '
                'not list for this image: use the json and the png files of one release'
            )
        return PanopticLabel(slots[position], self.segments)


@dataclass(frozen=True)
class CocoMasks:
    """Masks of COCO's json of instances, which may overlap.

    In the map of segments a small object covers a larger one, and all cover crowds.

    Args:
        size: Size (h, w) of the image.
        segments: A segment for each mask.
        segmentations: Polygons or run lengths of each mask, in COCO's form.
        names: Names of the annotations, for errors.
    """

    size: tuple[int, int]
    segments: list[dict[str, Any]]
    segmentations: list[Any]
    names: list[str]

    def read(self) -> PanopticLabel:
        masks = [
            decode_mask(item, self.size, name)
            for item, name in zip(self.segmentations, self.names, strict=True)
        ]
        slots = np.full(self.size, VOID, np.uint16)
        crowd = [item['iscrowd'] for item in self.segments]
        area = [int(mask.sum()) for mask in masks]
        numbers = slots_of(len(masks))
        for i in sorted(range(len(masks)), key=lambda i: (not crowd[i], -area[i])):
            slots[masks[i] > 0] = numbers[i]
        return PanopticLabel(slots, self.segments, masks=masks)


def decode_mask(segmentation: Any, size: tuple[int, int], name: str) -> np.ndarray:
    """Mask of polygons or run lengths in COCO's form, uint8 (H, W) of 0 and 1.

    Args:
        segmentation: Polygons or run lengths.
        size: Size (h, w) of the image.
        name: Name of the annotation, for errors.

    Raises:
        UserError: pycocotools is not installed, or ``segmentation`` has another form or size.
    """
    coco = import_extra('pycocotools.mask', 'pycocotools', 'reading masks of a COCO json')
    try:
        if isinstance(segmentation, list):
            polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
            if not polygons:
                return np.zeros(size, np.uint8)
            mask = coco.decode(coco.merge(coco.frPyObjects(polygons, *size)))
        elif isinstance(segmentation['counts'], list):
            mask = coco.decode(coco.frPyObjects(segmentation, *size))
        else:
            mask = coco.decode(segmentation)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{name}: its segmentation is not in COCO's form ({error}): give polygons or run "
            'lengths'
        ) from error
    if mask.shape != size:
        raise UserError(
            f'{name}: its mask is {mask.shape[1]}x{mask.shape[0]}, but its image is '
            f'{size[1]}x{size[0]}: both must have the same size'
        )
    return mask
