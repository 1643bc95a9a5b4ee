"""Cityscapes and Mapillary Vistas in the form of their downloads."""

import os.path as osp
from functools import cached_property
from typing import Any

from mmengine import fileio
from mmseg.datasets import CityscapesDataset, MapillaryDataset_v1
from mmseg.registry import DATASETS

from .folder import FolderDataset

# labelIds of the 19 evaluated classes, in the order of their train ids.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LABEL_ID_MAP = {i: 255 for i in range(34)} | {i: c for c, i in enumerate(LABEL_IDS)}


@DATASETS.register_module()
class CityscapesIdsDataset(FolderDataset):
    """Cityscapes as downloaded; ``labelIds`` are mapped to classes as they are loaded.

    An image that has a ``labelTrainIds`` file uses that file. The download holds no such files, so
    the host's ``CityscapesDataset`` cannot read it.

    Args:
        img_suffix: Ending of an image's file name.
        seg_map_suffix: Ending of a label's file name; ``_gtCoarse_labelTrainIds.png`` for the
            coarse labels.
        **kwargs: Arguments of ``FolderDataset``.
    """

    METAINFO = CityscapesDataset.METAINFO
    label_ids = LABEL_IDS  # values in auto-label files, in place of class indices

    def __init__(
        self,
        *,
        img_suffix: str = '_leftImg8bit.png',
        seg_map_suffix: str = '_gtFine_labelTrainIds.png',
        **kwargs: Any,
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def advice(self) -> str:
        root = (self.data_root or '').rstrip('/')
        if osp.basename(root) == 'streets':
            return f'run python tools/make_streets.py {root}'
        return (
            'unzip leftImg8bit and gtFine of cityscapes-dataset.com into one folder and name it '
            'with data_root (--data-root), or draw a replacement with '
            'python tools/make_streets.py DIR.'
        )

    @cached_property
    def _label_files(self) -> frozenset[str]:
        folder = self.data_prefix['seg_map_path']
        return frozenset(
            fileio.list_dir_or_file(
                folder, list_dir=False, recursive=True, backend_args=self.backend_args
            )
        )

    def find_label(self, stem: str) -> tuple[str, dict[int, int]]:
        if stem + self.seg_map_suffix in self._label_files:
            return super().find_label(stem)
        suffix = self.seg_map_suffix.replace('labelTrainIds', 'labelIds')
        return self.label_path(stem, suffix), LABEL_ID_MAP


@DATASETS.register_module()
class Mapillary65Dataset(FolderDataset):
    """Mapillary Vistas v1.x with its 65 evaluated classes; the label value 65 is ignored."""

    METAINFO = {key: value[:65] for key, value in MapillaryDataset_v1.METAINFO.items()}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(label_map={65: 255}, **kwargs)
