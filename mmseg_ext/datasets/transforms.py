"""Loading with errors that name the broken file, and the augmentation of HMSA (arXiv 2005.10821).

Sizes are (h, w), points are (x, y), and images are uint8, BGR. Random numbers come from
``np.random`` alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmcv.transforms import LoadAnnotations as AnyLoadAnnotations
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS
from PIL import Image

from ..errors import UserError

IGNORE_INDEX = 255
TOO_LARGE = 'the file has more pixels than PIL reads: cut it into tiles'


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """The host's ``LoadImageFromFile`` with an error that names a file that cannot be decoded.

    Raises:
        UserError: The file is no image, it is incomplete, or it has more pixels than PIL reads.
    """

    def transform(self, results: dict) -> dict | None:
        with naming(results['img_path'], 'an image'):
            _require_pixels_in_memory(results['img_path'])
            return super().transform(results)


def read_image(path: str | Path) -> np.ndarray:
    """Image of a file, uint8 (H, W, 3) in BGR, turned as its EXIF says.

    Raises:
        UserError: See ``LoadImage``.
    """
    return LoadImage().transform(dict(img_path=str(path)))['img']  # type: ignore[index]


def _require_pixels_in_memory(path: str) -> None:
    """Raises PIL's error for a file whose header declares too many pixels, before decoding it."""
    with suppress(OSError, SyntaxError, ValueError), Image.open(path):  # others may decode it
        pass


@TRANSFORMS.register_module()
class LoadSegMap(LoadAnnotations):
    """The host's ``LoadAnnotations`` for labels with errors that name the wrong file.

    It maps values with one table; the host compares the label with each class in turn.

    Raises:
        UserError: The file cannot be decoded, has several channels, its size differs from the
            image's, or it holds a fraction or a value that is no class (checked where the data set
            gives ``num_classes``).
    """

    def __init__(self, imdecode_backend: str = 'pillow', backend_args: dict | None = None) -> None:
        super().__init__(imdecode_backend=imdecode_backend, backend_args=backend_args)

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        label = self._read(path)
        if label.shape != results.get('ori_shape', label.shape):
            raise UserError(
                f'{path} is {_size(label.shape)} and its image {results["img_path"]} is '
                f'{_size(results["ori_shape"])}: both must have the same size'
            )
        table = class_table(results.get('label_map'), results.get('reduce_zero_label', False))
        _check_values(path, label, table, results.get('num_classes'))
        results['gt_seg_map'] = cv2.LUT(label, table)
        results['seg_fields'].append('gt_seg_map')

    def _read(self, path: str) -> np.ndarray:
        """Values of the file, uint8 (H, W)."""
        with naming(path, 'a label'):
            data = fileio.get(path, backend_args=self.backend_args)
            label = mmcv.imfrombytes(data, flag='unchanged', backend=self.imdecode_backend)
            assert label is not None  # cv2 returns None if it cannot decode
        if label.ndim == 3 and label.shape[2] == 1:
            label = label[..., 0]
        if label.ndim != 2:
            raise UserError(
                f'{path} has shape {label.shape}: a label needs one channel of class indices, so '
                'turn colours into indices first'
            )
        if label.dtype.kind == 'f' and (label % 1 != 0).any():
            raise UserError(f'{path} holds fractions: a label needs whole numbers, class indices')
        if label.dtype.itemsize > 1 and not 0 <= label.min() <= label.max() <= IGNORE_INDEX:
            raise UserError(
                f'{path} holds values from {label.min()} to {label.max()}: a label needs class '
                f'indices from 0 to {IGNORE_INDEX}'
            )
        return label.astype(np.uint8)


@TRANSFORMS.register_module()
class SetOriginalSize(BaseTransform):
    """Makes the present size of an image its original size, at which a prediction is scored.

    It follows a resize of image and label. Without a label it changes nothing, so that a prediction
    has the size of the image file.
    """

    def transform(self, results: dict) -> dict:
        if 'gt_seg_map' in results:
            results['ori_shape'] = results['img'].shape[:2]
        return results


def without_label_transforms(transforms: Sequence[Any]) -> list:
    """Configs of transforms without those for labels, also inside nested transforms."""
    selected = []
    for transform in transforms:
        if isinstance(transform, list | tuple):
            transform = without_label_transforms(transform)
            if not transform:  # ``TestTimeAug`` would make no image of an empty list
                continue
        else:
            kind = transform['type']
            cls = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
            if issubclass(cls, AnyLoadAnnotations):
                continue
            if 'transforms' in transform:
                inner = without_label_transforms(transform['transforms'])
                transform = {**transform, 'transforms': inner}
        selected.append(transform)
    return selected


@contextmanager
def naming(path: str, content: str) -> Iterator[None]:
    """Turns a decoder's error into an error that names the file.

    The error of a missing file names it already and passes unchanged.

    Args:
        path: File that is decoded.
        content: Words for the expected content, such as "an image".
    """
    try:
        yield
    except Image.DecompressionBombError as error:
        raise UserError(f'{path}: {TOO_LARGE}') from error
    except (AssertionError, cv2.error, OSError, SyntaxError) as error:
        if getattr(error, 'filename', None) is not None:
            raise
        raise UserError(
            f'{path} cannot be decoded as {content}: restore the file or remove it'
        ) from error


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}x{shape[0]}'


def class_table(label_map: dict[int, int] | None, reduce_zero_label: bool = False) -> np.ndarray:
    """The class of each value of a label file, uint8 (256,)."""
    table = np.arange(256)
    if label_map:
        table[list(label_map)] = list(label_map.values())
    if (
        reduce_zero_label
    ):  # the reduction comes before the map: v becomes v - 1; 0 and 255 are ignored
        table = np.concatenate([[IGNORE_INDEX], table[:254], [IGNORE_INDEX]])
    return table.astype(np.uint8)


def _check_values(path: str, label: np.ndarray, table: np.ndarray, num_classes: int | None) -> None:
    if num_classes is None:
        return
    present = cv2.calcHist([label], [0], None, [256], [0, 256]).ravel() > 0
    wrong = np.flatnonzero(present & (table >= num_classes) & (table != IGNORE_INDEX))
    if wrong.size:
        raise UserError(
            f'{path} holds the value {wrong[0]}, but the data set has the classes 0 to '
            f'{num_classes - 1} ({IGNORE_INDEX} is ignored): map it with label_map or add a class'
        )


@TRANSFORMS.register_module()
class RandomScaleCrop(BaseTransform):
    """Resizes by a random factor, then crops; the crop holds ``results['crop_center']`` if given.

    The image is resized with bicubic interpolation, labels with nearest neighbour. OpenCV uses four
    taps when it shrinks too; the released code uses PIL, which widens its kernel against aliasing.
    If the resized image is smaller than the crop, both sides get ``missing // 2 + 1`` pixels of
    black and ignored label. Without a centre, the position of the crop is uniform among all crops
    of the padded image. With a centre, it is uniform among the crops that hold the centre, also
    those that reach beyond the padded image; these are then moved to its border. So a centre near
    the border gives more crops at the border than elsewhere, as in the released code.

    ``crop_center`` is a pixel of the image as loaded. It may be resized and flipped before this
    transform, but not cropped, padded or rotated. In the released code the padding does not move
    the centre, which may then lie one pixel outside of the crop.

    Args:
        crop_size: Size (h, w) of the result.
        ratio_range: Range of the factor, which is uniform in it.
        aspect_range: Range of a factor of the ratio of width to height, which is uniform in it and
            leaves the area unchanged; None does not stretch images.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        ratio_range: tuple[float, float] = (0.5, 2.0),
        aspect_range: tuple[float, float] | None = None,
    ) -> None:
        self.crop_size = crop_size[0], crop_size[1]
        self.ratio_range = ratio_range
        self.aspect_range = aspect_range

    def transform(self, results: dict) -> dict:
        h, w = results['img'].shape[:2]
        scale = np.random.uniform(*self.ratio_range)
        stretch = np.sqrt(np.random.uniform(*self.aspect_range)) if self.aspect_range else 1.0
        size = max(int(h * scale / stretch), 1), max(int(w * scale * stretch), 1)
        x, y = _scaled_center(results, size)
        start = crop_start(size[0], self.crop_size[0], y), crop_start(size[1], self.crop_size[1], x)

        for key, method, fill in [
            ('img', cv2.INTER_CUBIC, 0),
            *(
                (key, cv2.INTER_NEAREST_EXACT, IGNORE_INDEX)
                for key in results.get('seg_fields', [])
            ),
        ]:
            resized = cv2.resize(results[key], size[::-1], interpolation=method)
            results[key] = crop_window(resized, start, self.crop_size, fill)
        results['img_shape'] = self.crop_size
        results['scale_factor'] = size[1] / w, size[0] / h
        results.pop('crop_center', None)
        return results

    def __repr__(self) -> str:
        return (
            f'RandomScaleCrop(crop_size={self.crop_size}, ratio_range={self.ratio_range}, '
            f'aspect_range={self.aspect_range})'
        )


def _scaled_center(results: dict, size: tuple[int, int]) -> tuple[int | None, int | None]:
    """Pixel (x, y) of ``crop_center`` after a resize to ``size``; None for both without it."""
    if 'crop_center' not in results:
        return None, None
    (x, y), (h, w) = results['crop_center'], results['ori_shape'][:2]
    direction = results['flip_direction'] if results.get('flip') else ''
    if direction in ('horizontal', 'diagonal'):
        x = w - 1 - x
    if direction in ('vertical', 'diagonal'):
        y = h - 1 - y
    return (2 * x + 1) * size[1] // (2 * w), (2 * y + 1) * size[0] // (2 * h)


def crop_start(length: int, crop: int, center: int | None = None) -> int:
    """Random start of a crop along one axis; negative where the crop begins in the padding.

    Args:
        length: Length of the image in pixels, before padding.
        crop: Length of the crop in pixels.
        center: Pixel of the image that the crop must hold; None for any crop.
    """
    pad = (crop - length) // 2 + 1 if length < crop else 0
    last = length + 2 * pad - crop
    if center is None:
        return np.random.randint(0, last + 1) - pad
    start = np.random.randint(center + pad - crop + 1, center + pad + 1)
    return min(max(start, 0), last) - pad


def crop_window(
    array: np.ndarray, start: tuple[int, int], size: tuple[int, int], fill: int
) -> np.ndarray:
    """Window of ``size`` (h, w) at ``start`` (y, x); outside of the array it holds ``fill``."""
    window = np.full((*size, *array.shape[2:]), fill, array.dtype)
    low = [max(s, 0) for s in start]
    high = [min(s + n, end) for s, n, end in zip(start, size, array.shape[:2], strict=True)]
    inside = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
    window[inside] = array[low[0] : high[0], low[1] : high[1]]
    return window


@TRANSFORMS.register_module()
class ColorJitter(BaseTransform):
    """Changes brightness, contrast, saturation and hue in random order.

    Differs from the host's ``PhotoMetricDistortion``, which has other ranges.

    Args:
        brightness: Range b of the factor of each pixel, which is uniform in [1 - b, 1 + b].
        contrast: Range of the factor for the distance to the mean grey of the image.
        saturation: Range of the factor for the distance to the grey of the pixel.
        hue: Range h of the shift, which is uniform in [-h, h]; a full circle is 1.
        prob: Probability of each change.
    """

    def __init__(
        self,
        brightness: float = 0.25,
        contrast: float = 0.25,
        saturation: float = 0.25,
        hue: float = 0.25,
        prob: float = 1.0,
    ) -> None:
        self.prob = prob
        self.steps = (
            (_brighten, 1, brightness),
            (_change_contrast, 1, contrast),
            (_saturate, 1, saturation),
            (_shift_hue, 0, hue),
        )

    def transform(self, results: dict) -> dict:
        for i in np.random.permutation(len(self.steps)):
            if self.prob < 1 and np.random.uniform() >= self.prob:
                continue
            change, middle, spread = self.steps[i]
            amount = middle + np.random.uniform(-spread, spread)
            results['img'] = change(results['img'], amount)
        return results

    def __repr__(self) -> str:
        brightness, contrast, saturation, hue = (spread for _, _, spread in self.steps)
        values = f'{brightness=}, {contrast=}, {saturation=}, {hue=}'
        return f'ColorJitter({values}, prob={self.prob})'


def _brighten(img: np.ndarray, factor: float) -> np.ndarray:
    return _linear(img, factor, 0)


def _change_contrast(img: np.ndarray, factor: float) -> np.ndarray:
    grey = cv2.cvtColor(img, cv2.COLOR_BGR2GRAY).mean()
    return _linear(img, factor, (1 - factor) * grey)


def _linear(img: np.ndarray, factor: float, offset: float) -> np.ndarray:
    table = np.clip(np.arange(256) * factor + offset, 0, 255)
    return cv2.LUT(img, table.round().astype(np.uint8))


def _saturate(img: np.ndarray, factor: float) -> np.ndarray:
    to_grey = np.array([0.114, 0.587, 0.299])  # of blue, green, red
    return cv2.transform(img, factor * np.eye(3) + (1 - factor) * to_grey)


def _shift_hue(img: np.ndarray, shift: float) -> np.ndarray:
    hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV_FULL)  # hue in 0 to 255, a full circle
    hsv[..., 0] += np.uint8(round(shift * 256) % 256)  # uint8 wraps around as hue does
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL)


@TRANSFORMS.register_module()
class ShiftBrightness(BaseTransform):
    """Adds a whole number to all values of every image; it is uniform in [-delta, delta]."""

    def __init__(self, delta: int = 10) -> None:
        self.delta = delta

    def transform(self, results: dict) -> dict:
        shift = np.random.randint(-self.delta, self.delta + 1)
        results['img'] = _linear(results['img'], 1, shift)
        return results

    def __repr__(self) -> str:
        return f'ShiftBrightness(delta={self.delta})'


@TRANSFORMS.register_module()
class RandomGaussianBlur(BaseTransform):
    """Blurs every image with a Gaussian; its sigma in pixels is uniform in ``sigma_range``."""

    def __init__(self, sigma_range: tuple[float, float] = (0.15, 1.30)) -> None:
        self.sigma_range = sigma_range

    def transform(self, results: dict) -> dict:
        sigma = np.random.uniform(*self.sigma_range)
        results['img'] = cv2.GaussianBlur(results['img'], (0, 0), sigma)
        return results

    def __repr__(self) -> str:
        return f'RandomGaussianBlur(sigma_range={self.sigma_range})'
