"""Pictures of single objects, drawn by code: class folders of images, and a mask of each object."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from ..errors import UserError

RECIPE = 'shapes.json'  # settings, written into a complete folder
VERSION = 1  # increased whenever the pixels of a seed change
FINE = 4  # objects are drawn at this multiple of the size
Point = tuple[float, float]  # (x, y), 0 to 1 inside the object's box


class _Canvas:
    """An object's colours and mask, at ``FINE`` times the size of the picture."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.image = np.zeros((size, size, 3), np.uint8)
        self.mask = np.zeros((size, size), np.uint8)
        self.side = rng.uniform(0.35, 0.75) * size
        self.origin = rng.uniform(0.05 * size, 0.95 * size - self.side, 2)

    def color(self) -> tuple[int, int, int]:
        blue, green, red = self.rng.integers(30, 226, 3).tolist()
        return blue, green, red

    def _pixel(self, point: Point) -> tuple[int, int]:
        x, y = self.origin + self.side * np.array(point)
        return round(x), round(y)

    def polygon(self, points: list[Point], color: tuple[int, int, int]) -> None:
        corners = np.array([self._pixel(point) for point in points], np.int32)
        cv2.fillPoly(self.image, [corners], color)
        cv2.fillPoly(self.mask, [corners], 1)

    def box(self, left: float, top: float, right: float, bottom: float, color: tuple) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color)

    def disc(self, center: Point, radius: float, color: tuple[int, int, int]) -> None:
        for target, value in ((self.image, color), (self.mask, 1)):
            cv2.circle(target, self._pixel(center), round(radius * self.side), value, -1)


def _car(c: _Canvas) -> None:
    body, glass = c.color(), c.color()
    c.polygon([(0.2, 0.45), (0.32, 0.2), (0.7, 0.2), (0.84, 0.45)], body)
    c.polygon([(0.28, 0.45), (0.36, 0.26), (0.66, 0.26), (0.76, 0.45)], glass)
    c.box(0.02, 0.45, 0.98, 0.72, body)
    for x in (0.24, 0.76):
        c.disc((x, 0.72), 0.12, (25, 25, 25))
        c.disc((x, 0.72), 0.05, (160, 160, 160))


def _house(c: _Canvas) -> None:
    wall, hole = c.color(), c.color()
    c.polygon([(0.0, 0.45), (0.5, 0.05), (1.0, 0.45)], c.color())
    c.box(0.1, 0.45, 0.9, 0.98, wall)
    for left in (0.2, 0.6):
        c.box(left, 0.55, left + 0.18, 0.72, hole)
    c.box(0.42, 0.72, 0.58, 0.98, hole)


def _person(c: _Canvas) -> None:
    coat, legs = c.color(), c.color()
    c.disc((0.5, 0.12), 0.1, (110, 150, 200))
    c.box(0.36, 0.22, 0.64, 0.6, coat)
    c.box(0.26, 0.24, 0.36, 0.56, coat)
    c.box(0.64, 0.24, 0.74, 0.56, coat)
    c.box(0.37, 0.6, 0.48, 0.98, legs)
    c.box(0.52, 0.6, 0.63, 0.98, legs)


def _sign(c: _Canvas) -> None:
    face = c.color()
    c.box(0.46, 0.3, 0.54, 0.98, (110, 110, 110))
    c.disc((0.5, 0.28), 0.26, c.color())
    c.disc((0.5, 0.28), 0.19, face)
    c.box(0.37, 0.25, 0.63, 0.31, (240, 240, 240))


def _tree(c: _Canvas) -> None:
    c.box(0.44, 0.6, 0.56, 0.98, (40, 70, 100))
    green = int(c.rng.integers(80, 200))
    for _ in range(9):
        x, y = c.rng.uniform((0.25, 0.2), (0.75, 0.55))
        shade = (int(c.rng.integers(20, 70)), green + int(c.rng.integers(-30, 31)), 40)
        c.disc((x, y), c.rng.uniform(0.13, 0.2), shade)


SHAPES: dict[str, Callable[[_Canvas], None]] = dict(
    car=_car, house=_house, person=_person, sign=_sign, tree=_tree
)


def draw_shape(name: str, seed: str, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A picture of an object before a blurred background with clutter.

    Args:
        name: Class of the object, a key of ``SHAPES``.
        seed: Seed; the same seed and size give the same pixels.
        size: Height and width in pixels.

    Returns:
        Image, uint8 (size, size, 3), BGR; and mask of the object, uint8 (size, size), 0 or 1.
    """
    rng = np.random.default_rng(list(f'{name}/{seed}'.encode()))
    canvas = _Canvas(FINE * size, rng)
    SHAPES[name](canvas)
    share = _shrink(canvas.mask.astype(np.float32), size)[..., None]
    colours = _shrink(canvas.image * canvas.mask[..., None], size).astype(np.float32)
    image = colours + (1 - share) * _background(size, rng)
    image = image * rng.uniform(0.7, 1.1) + rng.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), (share[..., 0] >= 0.5).astype(np.uint8)


def _shrink(array: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(array, (size, size), interpolation=cv2.INTER_AREA)


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Coloured clouds and a few blurred boxes, float32 (size, size, 3)."""
    coarse = rng.uniform(40, 215, (4, 4, 3)).astype(np.float32)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(2, 6)):
        (left, top), (width, height) = rng.integers(0, size, 2), rng.integers(4, size // 2, 2)
        image[top : top + height, left : left + width] = rng.uniform(20, 235, 3)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 3.0)).clip(0, 255)


def make_shapes(
    folder: str | Path, *, num_train: int = 120, num_val: int = 20, size: int = 96, seed: int = 0
) -> bool:
    """Draws ``train`` and ``val`` with a folder for each class, and ``masks`` with their masks.

    Args:
        folder: Output folder; one with the same settings is kept, another one is drawn anew.
        num_train: Number of pictures of each class for training.
        num_val: Number of pictures of each class for validation.
        size: Height and width in pixels, at least 32.
        seed: Seed.

    Returns:
        Whether the pictures were drawn; False if the folder already had them.

    Raises:
        UserError: A number is too small, or the folder holds other files.
    """
    if size < 32 or min(num_train, num_val) < 1:
        raise UserError(f'size={size} must be at least 32, and each split needs 1 picture a class')
    folder = Path(folder)
    recipe = dict(version=VERSION, train=num_train, val=num_val, size=size, seed=seed)
    written = folder / RECIPE
    if written.exists() and json.loads(written.read_text()) == recipe:
        return False
    if folder.exists() and any(folder.iterdir()) and not written.exists():
        raise UserError(f'{folder} holds other files: name a new folder')
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written.write_text('{}')  # an unfinished folder is drawn anew
    jobs = [
        (split, name, number)
        for split, count in (('train', num_train), ('val', num_val))
        for name in SHAPES
        for number in range(count)
    ]
    for split, name, number in track(jobs, 'draw'):
        image, mask = draw_shape(name, f'{split}/{seed}/{number}', size)
        for target, array in ((folder / split, image), (folder / 'masks' / split, mask)):
            path = target / name / f'{number:04d}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode('.png', array)[1].tobytes())
    written.write_text(json.dumps(recipe))
    return True
