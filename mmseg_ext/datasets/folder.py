"""A data set of two folders, images and masks, that needs no new class; parent of our data sets."""

import os.path as osp
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine import fileio
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from ..errors import UserError
from ..visualization.palette import distinct_colors
from .image_files import find_images

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff')


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """Pairs every image below one folder with the mask of the same name below another.

    Differs from the host's ``BaseSegDataset``: an error names the missing folder, images may have
    several suffixes, and the values of mask files are mapped to classes. Each item also holds
    ``num_classes``, so that ``LoadSegMap`` can name a file whose values are no classes.

    Args:
        label_map: Map from a value in the file to its class index, or to 255 to ignore it; other
            values stay as they are. With ``reduce_zero_label`` the map applies after the reduction,
            as in the host.
        img_suffix: Endings of an image's file name; upper and lower case are the same.
        seg_map_suffix: Ending of the mask's name; it replaces the ending of the image's name.
        **kwargs: Arguments of ``BaseSegDataset``; ``metainfo=dict(classes=(...))`` is required
            where ``METAINFO`` of the class names no classes. Without ``metainfo.palette`` the
            classes get colours that are easy to tell apart.

    Raises:
        UserError: A folder is missing or holds no image, ``ann_file`` lists a name without image,
            there are no classes, an image would be its own mask, or two images would share a mask.
    """

    def __init__(
        self,
        *,
        label_map: Mapping[int, int] | None = None,
        img_suffix: str | Sequence[str] = IMAGE_SUFFIXES,
        seg_map_suffix: str = '.png',
        **kwargs: Any,
    ) -> None:
        self.file_label_map = dict(label_map or {})
        metainfo = dict(kwargs.pop('metainfo', None) or {})
        described = {**self.METAINFO, **metainfo}
        if 'palette' not in described:
            metainfo['palette'] = distinct_colors(len(described.get('classes') or ()))
        if 'thing_classes' not in described:
            metainfo['thing_classes'] = ()  # semantic labels only
        kwargs['metainfo'] = metainfo
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def advice(self) -> str:
        """Advice for a missing folder, which ends the sentence of an error."""
        if self.data_root and fileio.exists(self.data_root, backend_args=self.backend_args):
            return f'name the folders of {self.data_root} in data_prefix'
        return 'name the folder that holds it with data_root (--data-root)'

    def find_label(self, stem: str) -> tuple[str, dict[int, int]]:
        """The mask of the image called ``stem``, and the map from its values to classes."""
        return self.label_path(stem, self.seg_map_suffix), self.file_label_map

    def label_path(self, stem: str, suffix: str) -> str:
        """Path of the mask with a name and an ending."""
        return osp.join(self.data_prefix['seg_map_path'], stem + suffix)

    def load_data_list(self) -> list[dict]:
        if not self._metainfo.get('classes'):
            raise UserError(
                f'{type(self).__name__} got no classes: set metainfo=dict(classes=(...))'
            )
        has_labels = self.data_prefix.get('seg_map_path') is not None
        for key in ('img_path', 'seg_map_path') if has_labels else ('img_path',):
            if not fileio.exists(self.data_prefix[key], backend_args=self.backend_args):
                raise UserError(f'{self.data_prefix[key]} does not exist: {self.advice()}')
        items = [self._item(stem, name, has_labels) for stem, name in self._images()]
        if has_labels:
            _refuse_shared_masks(items)
        return items

    def _images(self) -> list[tuple[str, str]]:
        """Sorted pairs (name without suffix, name) of the files below the image folder."""
        folder = self.data_prefix['img_path']
        suffixes = (self.img_suffix,) if isinstance(self.img_suffix, str) else self.img_suffix
        suffixes = tuple(sorted(suffixes, key=len, reverse=True))
        images = []
        for name in self._names(folder, suffixes):
            suffix = next((s for s in suffixes if name.lower().endswith(s.lower())), None)
            if suffix is not None:
                images.append((name[: -len(suffix)], name))
        if not images:
            raise UserError(
                f'{folder} holds no image that ends in {" or ".join(suffixes)}: {self.advice()}'
            )
        return sorted(self._named_in_ann_file(images) if self.ann_file else images)

    def _names(self, folder: str, suffixes: tuple[str, ...]) -> Iterable[str]:
        backend = fileio.get_file_backend(folder, backend_args=self.backend_args)
        if isinstance(backend, fileio.LocalBackend):
            return [osp.relpath(path, folder) for path in find_images(folder, suffixes)]
        return backend.list_dir_or_file(folder, list_dir=False, recursive=True)

    def _named_in_ann_file(self, images: list[tuple[str, str]]) -> list[tuple[str, str]]:
        by_stem = dict(images)
        lines = fileio.get_text(self.ann_file, backend_args=self.backend_args).splitlines()
        stems = [line.strip() for line in lines if line.strip()]
        missing = [stem for stem in stems if stem not in by_stem]
        if missing:
            raise UserError(
                f'{self.ann_file} lists {missing[0]} and {len(missing) - 1} more names that are no '
                f'images in {self.data_prefix["img_path"]}: list file names without their ending'
            )
        return [(stem, by_stem[stem]) for stem in stems]

    def _item(self, stem: str, name: str, has_labels: bool) -> dict:
        item = dict(
            img_path=osp.join(self.data_prefix['img_path'], name),
            label_map=self.label_map,
            reduce_zero_label=self.reduce_zero_label,
            num_classes=len(self._metainfo['classes']),
            seg_fields=[],
        )
        if has_labels:
            item['seg_map_path'], file_map = self.find_label(stem)
            if item['seg_map_path'] == item['img_path']:
                raise UserError(
                    f'{item["img_path"]} would be its own mask: set different folders in '
                    'data_prefix, or different endings in img_suffix and seg_map_suffix'
                )
            item['label_map'] = self._chosen_classes(file_map)
        return item

    def _chosen_classes(self, file_map: dict[int, int]) -> dict[int, int] | None:
        """``file_map``, followed by the host's map to the classes that the user chose."""
        chosen = self.label_map or {}
        return {**chosen, **{value: chosen.get(c, c) for value, c in file_map.items()}} or None


def _refuse_shared_masks(items: list[dict]) -> None:
    """Refuses images that differ in their suffix only, of which the mask can fit one."""
    images: dict[str, str] = {}
    for item in items:
        first = images.setdefault(item['seg_map_path'], item['img_path'])
        if first != item['img_path']:
            raise UserError(
                f'{first} and {item["img_path"]} would have the same mask: rename one, or name the '
                'ending of the images in img_suffix'
            )
