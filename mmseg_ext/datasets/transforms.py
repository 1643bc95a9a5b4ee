"""Loading that names the broken file, and the augmentation of HMSA (arXiv 2005.10821).

Sizes are (h, w), points (x, y); images are uint8, BGR. Random numbers come from ``np.random``
alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from ..errors import UserError

IGNORE_INDEX = 255


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """The host's ``LoadImageFromFile``, which names the file that cannot be decoded.

    Raises:
        ValueError: The file is no image, or only a part of one.
    """

    def transform(self, results: dict) -> dict | None:
        with naming(results['img_path'], 'an image'):
            return super().transform(results)


@TRANSFORMS.register_module()
class LoadSegMap(LoadAnnotations):
    """The host's ``LoadAnnotations`` for labels, which names the file that is wrong.

    Maps values by one table where the host compares the label with every class in turn.

    Raises:
        ValueError: The file cannot be decoded, has several channels, a value that is no class
            (where the data set gives ``num_classes``), or another size than the image.
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
        """The values of the file, uint8 (H, W)."""
        with naming(path, 'a label'):
            data = fileio.get(path, backend_args=self.backend_args)
            label = mmcv.imfrombytes(data, flag='unchanged', backend=self.imdecode_backend)
            assert label is not None  # how cv2 says that it cannot decode
        label = label.squeeze()
        if label.ndim != 2:
            raise UserError(
                f'{path} has shape {label.shape}: a label needs one channel of class indices, '
                'colours must be turned into indices first'
            )
        if label.dtype.itemsize > 1 and not 0 <= label.min() <= label.max() <= IGNORE_INDEX:
            raise UserError(
                f'{path} holds values from {label.min()} to {label.max()}: a label needs class '
                f'indices from 0 to {IGNORE_INDEX}'
            )
        return label.astype(np.uint8)


@contextmanager
def naming(path: str, what: str) -> Iterator[None]:
    """Turns a decoder's error into one that names the file; missing files name themselves."""
    try:
        yield
    except (AssertionError, cv2.error, OSError, SyntaxError) as error:
        if getattr(error, 'filename', None) is not None:
            raise
        raise UserError(
            f'{path} cannot be decoded as {what}: restore the file or remove it'
        ) from error


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}x{shape[0]}'


def class_table(label_map: dict[int, int] | None, reduce_zero_label: bool = False) -> np.ndarray:
    """The class of each value of a label file, uint8 (256,)."""
    table = np.arange(256)
    if label_map:
        table[list(label_map)] = list(label_map.values())
    if reduce_zero_label:  # comes first: value v is looked up as v - 1, 0 and 255 are ignored
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
    """Resizes by a random factor, cuts a crop that holds ``results['crop_center']`` if it exists.

    The image is resized bicubically (cv2: four taps also when shrinking, where the released PIL
    widens its kernel against aliasing), labels to the nearest pixel. Where the result is smaller
    than the crop, both sides get ``missing // 2 + 1`` pixels of black and ignored label. The crop's
    place is uniform among all that hold the centre, or among all, within the padded image.

    ``crop_center`` is a pixel of the image as loaded; resizes and flips in between are followed,
    other crops, pads and rotations are not. (Released: the centre is not moved by the padding and
    may lie one pixel outside.)

    Args:
        crop_size: (h, w) of the result.
        ratio_range: The factor is uniform in it.
    """

    def __init__(
        self, crop_size: tuple[int, int], ratio_range: tuple[float, float] = (0.5, 2.0)
    ) -> None:
        self.crop_size = crop_size[0], crop_size[1]
        self.ratio_range = ratio_range

    def transform(self, results: dict) -> dict:
        h, w = results['img'].shape[:2]
        scale = np.random.uniform(*self.ratio_range)
        size = max(int(h * scale), 1), max(int(w * scale), 1)
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
            results[key] = cut(resized, start, self.crop_size, fill)
        results['img_shape'] = self.crop_size
        results['scale_factor'] = size[1] / w, size[0] / h
        results.pop('crop_center', None)
        return results

    def __repr__(self) -> str:
        return f'RandomScaleCrop(crop_size={self.crop_size}, ratio_range={self.ratio_range})'


def _scaled_center(results: dict, size: tuple[int, int]) -> tuple[int | None, int | None]:
    """Pixel (x, y) of the image resized to ``size`` that shows the middle of ``crop_center``."""
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
        length: Pixels of the image, before padding.
        crop: Pixels of the crop.
        center: Pixel of the image that the crop must hold.
    """
    pad = (crop - length) // 2 + 1 if length < crop else 0
    last = length + 2 * pad - crop
    if center is None:
        return np.random.randint(0, last + 1) - pad
    start = np.random.randint(center + pad - crop + 1, center + pad + 1)
    return min(max(start, 0), last) - pad


def cut(array: np.ndarray, start: tuple[int, int], size: tuple[int, int], fill: int) -> np.ndarray:
    """The window of ``size`` at ``start``, both (y, x); ``fill`` outside of the array."""
    window = np.full((*size, *array.shape[2:]), fill, array.dtype)
    low = [max(s, 0) for s in start]
    high = [min(s + n, end) for s, n, end in zip(start, size, array.shape[:2], strict=True)]
    inside = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
    window[inside] = array[low[0] : high[0], low[1] : high[1]]
    return window


@TRANSFORMS.register_module()
class ColorJitter(BaseTransform):
    """Changes brightness, contrast, saturation and hue, always all four, in random order.

    The host's ``PhotoMetricDistortion`` changes each with probability 0.5, in other ranges.

    Args:
        brightness: The factor is uniform in 1 +- this; likewise for contrast and saturation, which
            move each pixel away from the mean grey and from its own grey.
        hue: The shift is uniform in +- this, of a full circle of 1.
    """

    def __init__(
        self,
        brightness: float = 0.25,
        contrast: float = 0.25,
        saturation: float = 0.25,
        hue: float = 0.25,
    ) -> None:
        self.steps = (
            (_brighten, 1, brightness),
            (_change_contrast, 1, contrast),
            (_saturate, 1, saturation),
            (_shift_hue, 0, hue),
        )

    def transform(self, results: dict) -> dict:
        for i in np.random.permutation(len(self.steps)):
            change, middle, spread = self.steps[i]
            amount = middle + np.random.uniform(-spread, spread)
            results['img'] = change(results['img'], amount)
        return results

    def __repr__(self) -> str:
        brightness, contrast, saturation, hue = (spread for _, _, spread in self.steps)
        return f'ColorJitter({brightness=}, {contrast=}, {saturation=}, {hue=})'


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
    hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV_FULL)  # hue fills 0 to 255
    hsv[..., 0] += np.uint8(round(shift * 256) % 256)  # and wraps
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL)


@TRANSFORMS.register_module()
class RandomGaussianBlur(BaseTransform):
    """Blurs every image, by a sigma in pixels that is uniform in ``sigma_range``."""

    def __init__(self, sigma_range: tuple[float, float] = (0.15, 1.30)) -> None:
        self.sigma_range = sigma_range

    def transform(self, results: dict) -> dict:
        sigma = np.random.uniform(*self.sigma_range)
        results['img'] = cv2.GaussianBlur(results['img'], (0, 0), sigma)
        return results

    def __repr__(self) -> str:
        return f'RandomGaussianBlur(sigma_range={self.sigma_range})'
