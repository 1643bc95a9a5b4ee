"""COCO's json with panoptic png files, and COCO's json of instances.

Other data sets in these forms are read too: the classes are those of the json.
"""

import json
import os.path as osp
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine import fileio
from mmseg.registry import DATASETS

from ...errors import UserError
from ..folder import FolderDataset
from .labels import CocoMasks, PanopticPng, PanopticSource, segment


@contextmanager
def _explaining_form(path: str) -> Iterator[None]:
    """Turns the error of an entry in another form than COCO's into a sentence."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        problem = f'lacks the key {error}' if isinstance(error, KeyError) else f'({error})'
        raise UserError(
            f"{path} is not in COCO's form: an entry {problem}; compare it with a json of COCO"
        ) from error


class _CocoDataset(FolderDataset):
    """Images that a json of COCO lists, with a ``PanopticSource`` each.

    Args:
        ann_file: Path of the json. Without ``annotations`` in it, or without the folder of the png
            files in ``data_prefix``, images have no label.
        data_root: Folder that ``ann_file`` and the folders of ``data_prefix`` are relative to.
        metainfo: Classes to use, by name and in this order; segments of other classes become void.
            By default all categories of the json. Its palette replaces the colours of the json.
        **kwargs: Arguments of ``BaseSegDataset``.

    Raises:
        UserError: A file or folder is missing, the json is of another form, or a class is not
            in it.
    """

    KEY: str  # of an annotation of this form, and not of the other form
    OTHER: str  # data set for the other form
    FOLDERS: frozenset[str]  # names of the folders with labels in ``data_prefix``

    def __init__(
        self,
        *,
        ann_file: str,
        data_root: str | None = None,
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        path = osp.join(data_root or '', ann_file)
        self._content = self._read_json(path, kwargs)
        with _explaining_form(path):
            self._things = {c['id']: self._is_thing(c) for c in self._content['categories']}
            described = self._describe(dict(metainfo or {}))
        super().__init__(ann_file=ann_file, data_root=data_root, metainfo=described, **kwargs)

    def _read_json(self, path: str, kwargs: dict) -> dict[str, Any]:
        backend_args = kwargs.get('backend_args')
        if not fileio.exists(path, backend_args=backend_args):
            raise UserError(f'{path} does not exist: name the json in ann_file and data_root')
        try:
            content = json.loads(fileio.get_text(path, backend_args=backend_args))
        except ValueError as error:
            raise UserError(f'{path} is no json ({error}): restore it') from error
        if not isinstance(content, dict) or not {'images', 'categories'} <= content.keys():
            raise UserError(f'{path} has no images and categories: give a json in the form of COCO')
        annotations = content.get('annotations') or []
        if any(self.KEY not in annotation for annotation in annotations[:1]):
            raise UserError(
                f'{path} has annotations without {self.KEY!r}: read it with {self.OTHER}, or '
                'name another json'
            )
        return content

    def _is_thing(self, category: dict[str, Any]) -> bool:
        raise NotImplementedError

    def _describe(self, metainfo: dict[str, Any]) -> dict[str, Any]:
        """Adds the classes, their colours and the indices of the things to ``metainfo``."""
        by_name = {c['name']: c for c in self._content['categories']}
        classes = tuple(metainfo.get('classes') or by_name)
        if unknown := [name for name in classes if name not in by_name]:
            raise UserError(
                f'metainfo.classes has {unknown[0]!r}, but the categories of the json are '
                f'{", ".join(by_name)}: use only these names'
            )
        chosen = [by_name[name] for name in classes]
        colors = [c['color'] for c in chosen if 'color' in c]
        if len(colors) == len(chosen):
            metainfo.setdefault('palette', colors)
        things = tuple(i for i, c in enumerate(chosen) if self._things[c['id']])
        self._class_of = {c['id']: i for i, c in enumerate(chosen)}
        return {**metainfo, 'classes': classes, 'thing_classes': things}

    def advice(self) -> str:
        return 'name the folders of images and labels in data_prefix and data_root'

    def load_data_list(self) -> list[dict]:
        with _explaining_form(self.ann_file):
            return self._items()

    def _items(self) -> list[dict]:
        content, self._content = self._content, {}
        for path in self.data_prefix.values():
            if not fileio.exists(path, backend_args=self.backend_args):
                raise UserError(f'{path} does not exist: {self.advice()}')
        if not content['images']:
            raise UserError(f'{self.ann_file} lists no image: name another json')
        by_image: dict[Any, list[dict]] = defaultdict(list)
        for annotation in content.get('annotations', ()):
            by_image[annotation['image_id']].append(annotation)
        has_labels = 'annotations' in content and self.data_prefix.keys() >= self.FOLDERS
        items = []
        for image in content['images']:
            path = osp.join(self.data_prefix['img_path'], image['file_name'])
            item = dict(
                img_path=path,
                label_map=None,
                reduce_zero_label=False,
                num_classes=len(self._metainfo['classes']),
                seg_fields=[],
            )
            if has_labels:
                item.update(self._label(image, by_image[image['id']]))
            items.append(item)
        return items

    def _label(self, image: dict, annotations: list[dict]) -> dict[str, Any]:
        """Keys of an item for the label of an image."""
        raise NotImplementedError

    def _segments(self, entries: Sequence[dict]) -> tuple[list[dict[str, Any]], list[dict]]:
        """Segments of the chosen classes, and their entries."""
        segments, chosen = [], []
        for entry in entries:
            category = entry['category_id']
            if category not in self._things:
                raise UserError(
                    f'{self.ann_file} has a segment {entry["id"]} of the category {category}, '
                    'which its categories do not list: add the category or remove the segment'
                )
            if category in self._class_of:
                segments.append(
                    segment(
                        entry['id'],
                        self._class_of[category],
                        thing=self._things[category],
                        crowd=bool(entry.get('iscrowd', 0)),
                    )
                )
                chosen.append(entry)
        return segments, chosen


@DATASETS.register_module()
class CocoPanopticDataset(_CocoDataset):
    """COCO's panoptic json and png files.

    In a download of COCO the json is ``annotations/panoptic_train2017.json``, and the png files are
    in ``annotations/panoptic_train2017``. Cityscapes and ADE20K after panopticapi's preparation
    have this form too.

    Args:
        **kwargs: Arguments of ``_CocoDataset``: ``ann_file``, ``data_root``, ``metainfo`` and
            ``data_prefix=dict(img_path=..., seg_map_path=...)``, the folders of images and png
            files.
    """

    KEY, OTHER, FOLDERS = 'segments_info', 'CocoInstanceDataset', frozenset({'seg_map_path'})

    def _is_thing(self, category: dict[str, Any]) -> bool:
        if 'isthing' not in category:
            raise UserError(
                f'the category {category["name"]!r} of a panoptic json has no isthing: add it, '
                '1 for things and 0 for stuff'
            )
        return bool(category['isthing'])

    def _label(self, image: dict, annotations: list[dict]) -> dict[str, Any]:
        if len(annotations) != 1:
            raise UserError(
                f'{self.ann_file} has {len(annotations)} annotations of {image["file_name"]}: a '
                'panoptic json has one for each image'
            )
        (annotation,) = annotations
        path = osp.join(self.data_prefix['seg_map_path'], annotation['file_name'])
        entries = annotation['segments_info']
        segments, chosen = self._segments(entries)
        ids = [0, *(entry['id'] for entry in entries)]  # 0 is void
        if len(set(ids)) < len(ids):
            repeated = next(value for value in ids if ids.count(value) > 1)
            raise UserError(
                f'{self.ann_file} has two segments of the id {repeated} in {image["file_name"]} '
                '(0 is void): give each segment an id of its own'
            )
        used = {entry['id'] for entry in chosen}
        others = tuple(entry['id'] for entry in entries if entry['id'] not in used)
        source: PanopticSource = PanopticPng(
            path, self.ann_file, segments, others, self.backend_args
        )
        return dict(seg_map_path=path, panoptic=source)


@DATASETS.register_module()
class CocoInstanceDataset(_CocoDataset):
    """COCO's json of instances; all its classes are things, and it has no stuff.

    It needs pycocotools.

    Args:
        **kwargs: Arguments of ``_CocoDataset``: ``ann_file``, ``data_root``, ``metainfo`` and
            ``data_prefix=dict(img_path=...)``.
    """

    KEY, OTHER, FOLDERS = 'segmentation', 'CocoPanopticDataset', frozenset()

    def _is_thing(self, category: dict[str, Any]) -> bool:
        return True

    def _label(self, image: dict, annotations: list[dict]) -> dict[str, Any]:
        segments, chosen = self._segments(annotations)
        for number, (item, entry) in enumerate(zip(segments, chosen, strict=True), 1):
            item['id'] = number  # ids of crowds in COCO exceed 32 bits
            item['coco'] = {key: entry[key] for key in ('area', 'bbox') if key in entry}
        size = image['height'], image['width']
        masks = [annotation['segmentation'] for annotation in chosen]
        names = [f'{self.ann_file}, annotation {annotation["id"]}' for annotation in chosen]
        return dict(panoptic=CocoMasks(size, segments, masks, names))
