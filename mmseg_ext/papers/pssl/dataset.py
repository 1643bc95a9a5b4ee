"""Data set of images in class folders with labels from explanations, and its loader."""

import os.path as osp
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS

from mmseg_ext.datasets.folder import FolderDataset
from mmseg_ext.datasets.image_files import find_images

from ...errors import UserError
from .label_files import read_foreground, read_summary
from .pixel_labels import TOP
from .released_list import image_and_class

BACKGROUND = 'background'
IGNORE_INDEX = 1001  # that of ImageNet's 1000 classes and background; no class of smaller sets


@DATASETS.register_module()
class PSSLDataset(FolderDataset):
    """Images of class folders with the labels that ``tools/pssl_labels.py`` wrote for them.

    The K class folders are the classes 0 to K - 1, and background is the class K. With
    ``synsets_file`` the released form is read: ``ann_file`` lists ``.npz`` files below
    ``seg_map_path``, and the images are below ``img_path``.

    Args:
        data_prefix: Folders by name: ``img_path`` holds the class folders, ``seg_map_path`` the
            output of the tool.
        synsets_file: File with the name of a class on each line, in the order of the classes.
        top: Lowest decile that gets the class, for labels with all tenths; 9 in the paper.
        ignore_index: Label of padding, no class.
        metainfo: Classes that the labels must have, background last; None takes any.
        **kwargs: Arguments of ``FolderDataset``.

    Raises:
        UserError: A folder, list or summary is missing, labels are missing, a class folder is not
            among the classes of the labels, ``metainfo`` has other classes, or ``ignore_index`` is
            a class.
    """

    # The labels name the classes; these stand for ImageNet's where there are no labels.
    METAINFO = dict(classes=(*(f'class_{i}' for i in range(1000)), BACKGROUND))

    def __init__(
        self,
        *,
        data_prefix: dict[str, str],
        data_root: str | None = None,
        synsets_file: str | None = None,
        top: int = TOP,
        ignore_index: int = IGNORE_INDEX,
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        root = data_root or ''
        if synsets_file is None:
            folders = read_summary(osp.join(root, data_prefix['seg_map_path']))['classes']
        else:
            folders = _lines(osp.join(root, synsets_file))
        classes = (*folders, BACKGROUND)
        expected = tuple((metainfo or {}).get('classes') or classes)
        if expected != classes:
            differing = sorted(set(expected) ^ set(classes)) or ['their order']
            raise UserError(
                f'the labels in {data_prefix["seg_map_path"]} have {len(classes)} classes and '
                f'metainfo has {len(expected)} (different: {", ".join(differing[:3])}): make the '
                'labels for the same class folders, or correct metainfo.classes'
            )
        self.released = synsets_file is not None
        self.indices = {name: i for i, name in enumerate(folders)}
        self.top = top
        if ignore_index <= len(folders):
            raise UserError(
                f'ignore_index={ignore_index} is one of {len(folders)} classes and background: set '
                f'it to {len(folders) + 1} or more, in the model and the metrics too'
            )
        super().__init__(
            data_prefix=data_prefix,
            data_root=data_root,
            metainfo=dict(metainfo or {}, classes=classes),
            ignore_index=ignore_index,
            **kwargs,
        )

    @classmethod
    def get_label_map(cls, new_classes: Sequence | None = None) -> None:
        """No map, because the classes are those of the labels."""

    def load_data_list(self) -> list[dict]:
        """Items with the class of the image and the values that ``LoadPSSLLabel`` needs."""
        if self.released:
            return [self._released_item(line) for line in _lines(self.ann_file)]
        items = super().load_data_list()
        labels = self.data_prefix['seg_map_path']
        existing = set(map(osp.normpath, find_images(labels, ('.png',))))
        missing = [item for item in items if osp.normpath(item['seg_map_path']) not in existing]
        if missing:
            raise UserError(
                f'{len(missing)} of {len(items)} images have no label in {labels}, first '
                f'{missing[0]["img_path"]}: run tools/pssl_labels.py again, which continues'
            )
        return items

    def _item(self, stem: str, name: str, has_labels: bool) -> dict:
        folder = name.split('/')[0]
        if folder not in self.indices:
            raise UserError(
                f'{name} is in the class folder {folder}, which the labels do not have: make the '
                'labels for these folders'
            )
        return super()._item(stem, name, has_labels) | self._values(self.indices[folder])

    def _values(self, class_index: int) -> dict:
        return dict(
            class_index=class_index,
            background=len(self.indices),
            top=self.top,
            ignore_index=self.ignore_index,
        )

    def _released_item(self, line: str) -> dict:
        image, index = image_and_class(line, self.indices)
        item: dict = dict(
            img_path=osp.join(self.data_prefix['img_path'], image),
            seg_map_path=osp.join(self.data_prefix['seg_map_path'], line),
            label_map=None,
            reduce_zero_label=False,
            num_classes=len(self._metainfo['classes']),
            seg_fields=[],
        )
        return item | self._values(index)


def _lines(path: str) -> list[str]:
    """Lines of a file that are not empty."""
    if not Path(path).is_file():
        raise UserError(f'{path} does not exist: name the list with ann_file or synsets_file')
    return [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]


@TRANSFORMS.register_module()
class LoadPSSLLabel(LoadAnnotations):
    """Reads the label of an image of ``PSSLDataset``: its class in the foreground, or background.

    Labels are uint16, because a thousand classes do not fit into 8 bits.

    Args:
        ignore_values: Values of released ``.npz`` files that are ignored. Without them, all values
            but 1 are background, as in the released code.

    Raises:
        UserError: The file is damaged or no such label, or its size is not the image's.
    """

    def __init__(self, ignore_values: Sequence[int] = ()) -> None:
        super().__init__()
        self.ignore_values = tuple(ignore_values)

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        if 'class_index' not in results:
            raise UserError(
                f'{path} is no label of a PSSLDataset, which LoadPSSLLabel needs: read other '
                'labels with LoadSegMap'
            )
        foreground = read_foreground(path, results['top'], self.ignore_values)
        size = results.get('ori_shape', foreground.shape)
        if foreground.shape != tuple(size):
            raise UserError(
                f'{path} has the shape {foreground.shape} and its image {results["img_path"]} '
                f'{tuple(size)}: both must have the same size'
            )
        # indexed by background, foreground and, last, the ignored pixels
        values = (results['background'], results['class_index'], results['ignore_index'])
        results['gt_seg_map'] = np.array(values, np.uint16)[foreground]
        results['seg_fields'].append('gt_seg_map')

    def __repr__(self) -> str:
        return f'LoadPSSLLabel(ignore_values={self.ignore_values})'
