"""Data sets of aerial images whose masks hold one colour per class."""

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS

from ..errors import UserError
from .folder import FolderDataset
from .transforms import class_table, naming


@TRANSFORMS.register_module()
class LoadColorSegMap(LoadAnnotations):
    """Loads a mask of colours as class indices; ``palette`` of the data set names the colours.

    A mask of one channel is read as grey.

    Args:
        threshold: Smallest channel value that counts as 255; smaller values count as 0. It is for
            masks whose colours were compressed; None takes the colours as they are.
        imdecode_backend: Decoder, as in the host's ``LoadAnnotations``.
        backend_args: Settings of the file backend, as in the host's ``LoadAnnotations``.

    Raises:
        UserError: The file cannot be decoded, its size differs from the image's, or it holds a
            colour that no class has.
    """

    def __init__(
        self,
        *,
        threshold: int | None = None,
        imdecode_backend: str = 'cv2',
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(imdecode_backend=imdecode_backend, backend_args=backend_args)
        self.threshold = threshold

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        with naming(path, 'a mask'):
            data = fileio.get(path, backend_args=self.backend_args)
            mask = mmcv.imfrombytes(
                data, flag='color', channel_order='rgb', backend=self.imdecode_backend
            )
            assert mask is not None  # cv2 returns None if it cannot decode
        size, image_size = mask.shape[:2], tuple(results.get('ori_shape', mask.shape)[:2])
        if size != image_size:
            raise UserError(
                f'{path} is {size[1]}x{size[0]} and its image {results["img_path"]} is '
                f'{image_size[1]}x{image_size[0]}: both must have the same size'
            )
        if self.threshold is not None:
            mask = np.where(mask >= self.threshold, np.uint8(255), np.uint8(0))
        label = _classes_of(mask, results['palette'], path)
        results['gt_seg_map'] = cv2.LUT(label, class_table(results.get('label_map')))
        results['seg_fields'].append('gt_seg_map')


def _classes_of(mask: np.ndarray, palette: dict[str, Sequence[int]], path: str) -> np.ndarray:
    """Class indices (H, W), uint8, of RGB colours (H, W, 3): their positions in the palette."""
    weights = np.array([1 << 16, 1 << 8, 1], np.int32)
    class_codes = np.array(list(palette.values()), np.int32) @ weights
    order = np.argsort(class_codes)
    codes = mask.astype(np.int32) @ weights
    classes = order[np.searchsorted(class_codes[order], codes).clip(max=len(class_codes) - 1)]
    wrong = codes != class_codes[classes]
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        raise UserError(
            f'{path} has the colour {tuple(mask[y, x].tolist())} (red, green, blue) at column {x}, '
            f'row {y}, and colours without a class in {100 * wrong.mean():.2g} % of its pixels: '
            f'repaint them, the classes are {", ".join(f"{n} {c}" for n, c in palette.items())}'
        )
    return classes.astype(np.uint8)


class ColorMaskDataset(FolderDataset):
    """A folder of images and a folder of masks in the colours of ``METAINFO``.

    The pipeline has to load the masks with ``LoadColorSegMap``.
    """

    METAINFO: dict[str, Any] = {}

    def _item(self, stem: str, name: str, has_labels: bool) -> dict:
        colors = zip(self.METAINFO['classes'], self.METAINFO['palette'], strict=True)
        return super()._item(stem, name, has_labels) | dict(palette=dict(colors))


@DATASETS.register_module()
class DeepGlobeDataset(ColorMaskDataset):
    """DeepGlobe land cover (Demir et al., CVPRW 2018, arXiv 1805.06561), 7 classes, 2448x2448.

    The image ``train/NUMBER_sat.jpg`` has the mask ``train/NUMBER_mask.png``. The downloaded
    ``valid`` and ``test`` have no masks, so text files (``ann_file``) divide ``train`` into splits:
    one number per line. "unknown" is a class: papers train it and omit it from the mean.
    """

    METAINFO = dict(
        classes=('unknown', 'urban', 'agriculture', 'rangeland', 'forest', 'water', 'barren'),
        palette=[
            [0, 0, 0],
            [0, 255, 255],
            [255, 255, 0],
            [255, 0, 255],
            [0, 255, 0],
            [0, 0, 255],
            [255, 255, 255],
        ],
    )

    def __init__(
        self,
        *,
        img_suffix: str = '_sat.jpg',
        seg_map_suffix: str = '_mask.png',
        **kwargs: Any,
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def advice(self) -> str:
        return (
            'unzip the land cover set of DeepGlobe so that DIR/train holds NUMBER_sat.jpg and '
            'NUMBER_mask.png, and name DIR with data_root (--data-root)'
        )

    def _named_in_ann_file(self, images: list[tuple[str, str]]) -> list[tuple[str, str]]:
        if not fileio.exists(self.ann_file, backend_args=self.backend_args):
            raise UserError(
                f'{self.ann_file} does not exist: write the numbers of the images of this split '
                f"into it, one per line, or use all {len(images)} with ann_file=''"
            )
        return super()._named_in_ann_file(images)


@DATASETS.register_module()
class InriaDataset(ColorMaskDataset):
    """Inria aerial image labelling (Maggiori et al., IGARSS 2017), building or not, 5000x5000.

    It reads the download as it is: images ``train/images/CITYn.tif`` and masks
    ``train/gt/CITYn.tif`` with the values 0 and 255, 36 tiles for each of five cities. Its ``test``
    has no masks.

    Args:
        tiles: Numbers n to keep; None keeps all. The authors validate on 1 to 5.
        **kwargs: Arguments of ``FolderDataset``.

    Raises:
        UserError: No image has one of these numbers.
    """

    METAINFO = dict(classes=('not building', 'building'), palette=[[0, 0, 0], [255, 255, 255]])

    def __init__(
        self,
        *,
        tiles: Sequence[int] | None = None,
        img_suffix: str = '.tif',
        seg_map_suffix: str = '.tif',
        **kwargs: Any,
    ) -> None:
        self.tiles = None if tiles is None else frozenset(tiles)
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def advice(self) -> str:
        return (
            'unpack AerialImageDataset so that DIR/train holds images and gt, and name DIR with '
            'data_root (--data-root)'
        )

    def _images(self) -> list[tuple[str, str]]:
        images = super()._images()
        if self.tiles is None:
            return images
        selected = [pair for pair in images if _number_of(pair[0]) in self.tiles]
        if not selected:
            raise UserError(
                f'none of the {len(images)} images of {self.data_prefix["img_path"]} ends in one '
                f'of the numbers {sorted(self.tiles)[:5]}...: name them CITYn.tif or set tiles=None'
            )
        return selected


def _number_of(stem: str) -> int | None:
    """Number at the end of a name: 36 for ``vienna36``; None without a number."""
    match = re.search(r'(\d+)$', PurePath(stem).name)
    return int(match[1]) if match else None
