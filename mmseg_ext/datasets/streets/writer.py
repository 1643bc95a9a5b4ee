"""Scenes to files."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from ...errors import UserError
from . import ground, roadside, traffic
from .scene import Scene

VERSION = 1  # raised whenever a seed gives other pixels
MIN_SIZE = (64, 128)
RECIPE = 'streets.json'  # what a complete folder holds
CITIES = {
    'train': ('arnfeld', 'brunnau', 'dornheim'),
    'val': ('eschenau',),
    'train_extra': ('falkrode', 'gersdorf'),
}


def draw_scene(
    seed: int | str, size: tuple[int, int] = (256, 512)
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a scene.

    Args:
        seed: The same seed and size give the same pixels.
        size: (h, w) in pixels, at least 64x128.

    Returns:
        The image, uint8 (h, w, 3), BGR as OpenCV has it, and Cityscapes' labelIds, uint8 (h, w).

    Raises:
        ValueError: ``size`` is too small.
    """
    _check_size(size)
    s = Scene(seed, size)
    ground.sky(s)
    ground.ground(s)
    roadside.skyline(s)
    roadside.roadside(s, 0)
    roadside.roadside(s, 1)
    roadside.trees(s)
    traffic.populate(s)
    ground.cast_shadows(s)
    for _, draw in sorted(s.things, key=lambda thing: -thing[0]):
        draw()
    ground.own_car(s)
    return s.photograph(), s.label


def coarse_labels(label: np.ndarray) -> np.ndarray:
    """Shrunken polygons of the larger regions of labelIds (h, w), as Cityscapes' coarse annotation.

    The rest, among it everything thin, is 0, unlabeled.
    """
    reach = max(1, round(label.shape[0] / 100))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    coarse = np.zeros_like(label)
    for value in np.unique(label):
        core = cv2.erode((label == value).astype(np.uint8), kernel)
        outlines, _ = cv2.findContours(core, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        polygons = [cv2.approxPolyDP(o, 0.8 * reach, True) for o in outlines]
        large = [p for p in polygons if cv2.contourArea(p) > 8 * reach**2]
        cv2.fillPoly(coarse, large, int(value))  # even-odd, so that holes stay open
    return coarse


def make_streets(
    root: str | Path,
    *,
    num_train: int = 500,
    num_val: int = 100,
    num_extra: int = 200,
    size: tuple[int, int] = (256, 512),
    seed: int = 0,
    progress: bool = True,
) -> bool:
    """Writes the data set as Cityscapes' download lays it out.

    ``leftImg8bit/{train,val,train_extra}``, ``gtFine/{train,val}`` with labelIds, and
    ``gtCoarse/train_extra`` with coarse polygons. The folder gets its name when it is complete;
    until then its name ends in ``.partial``.

    Args:
        root: The folder to make.
        num_train: Scenes with fine labels for training.
        num_val: The same for validation.
        num_extra: Scenes with coarse labels.
        size: (h, w) in pixels, at least 64x128.
        seed: Of the whole set; each scene depends on it, its split and its number alone.
        progress: Whether to show a progress bar.

    Returns:
        False if ``root`` holds this very set already, else True.

    Raises:
        FileExistsError: ``root`` is a file or holds something else.
        ValueError: a number of scenes is negative, or ``size`` is too small.
    """
    root = Path(root).resolve()
    counts = {'train': num_train, 'val': num_val, 'train_extra': num_extra}
    _check_size(size)
    _check_counts(counts)
    recipe = json.dumps({'version': VERSION, **counts, 'size': list(size), 'seed': seed})
    if (root / RECIPE).is_file() and (root / RECIPE).read_text() == recipe:
        return False
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f'{root} exists and is not this set of streets: remove it or name another folder'
        )
    partial = root.with_name(root.name + '.partial')
    if partial.exists():
        shutil.rmtree(partial)
    scenes = [(split, i) for split, count in counts.items() for i in range(count)]
    for split, i in track(scenes, 'Drawing streets', disable=not progress):
        image, label = draw_scene(f'{seed} {split} {i}', size)
        _write(partial, split, i, image, label)
    (partial / RECIPE).write_text(recipe)
    if root.exists():
        root.rmdir()
    partial.rename(root)
    return True


def _check_size(size: tuple[int, int]) -> None:
    if size[0] < MIN_SIZE[0] or size[1] < MIN_SIZE[1]:
        raise UserError(f'size {size[0]}x{size[1]} (h x w) is too small: take at least 64x128')


def _check_counts(counts: dict[str, int]) -> None:
    if min(counts.values()) < 0 or not any(counts.values()):
        raise UserError(f'{counts} scenes: take numbers of 0 or more, and one above 0')


def _write(root: Path, split: str, index: int, image: np.ndarray, label: np.ndarray) -> None:
    city = CITIES[split][index % len(CITIES[split])]
    kind = 'gtCoarse' if split == 'train_extra' else 'gtFine'
    stem = f'{city}_{index:06d}_000019'
    files = {
        f'leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png': image,
        f'{kind}/{split}/{city}/{stem}_{kind}_labelIds.png': coarse_labels(label)
        if kind == 'gtCoarse'
        else label,
    }
    for name, array in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), array):
            raise UserError(f'{path} could not be written: is the disk full?')
