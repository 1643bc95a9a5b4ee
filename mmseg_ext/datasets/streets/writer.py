"""Drawing of complete scenes, and the data set's files."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.progress import track

from ...errors import UserError
from . import ground, roadside, traffic
from .coco_labels import CocoLabels
from .scene import Scene

VERSION = 2  # increased whenever the pixels of a seed or the set of files change
MIN_SIZE = (64, 128)
RECIPE = 'streets.json'  # file with the settings, written into a complete folder
CITIES = {
    'train': ('arnfeld', 'brunnau', 'dornheim'),
    'val': ('eschenau',),
    'train_extra': ('falkrode', 'gersdorf'),
}


class Drawing(NamedTuple):
    """A scene and its labels.

    Args:
        image: Image, uint8 (h, w, 3), BGR as in OpenCV.
        label: Cityscapes' labelIds, uint8 (h, w).
        instance_ids: Cityscapes' instanceIds, uint16 (h, w); see ``Scene.instance_ids``.
    """

    image: np.ndarray
    label: np.ndarray
    instance_ids: np.ndarray


def draw_scene(seed: int | str, size: tuple[int, int] = (256, 512)) -> Drawing:
    """Draws a scene.

    Args:
        seed: Seed; the same seed and size give the same pixels.
        size: Size (h, w) in pixels, at least 64x128.

    Raises:
        UserError: ``size`` is too small.
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
    for _, number, draw in sorted(s.draw_calls, key=lambda call: -call[0]):
        s.object = number
        draw()
    ground.own_car(s)
    return Drawing(s.photograph(), s.label, s.instance_ids())


def coarse_labels(label: np.ndarray) -> np.ndarray:
    """Coarse labels like those of Cityscapes: shrunken polygons of the larger regions of labelIds.

    All other pixels, such as those of thin objects, are 0, unlabeled. Input and output are (h, w).
    """
    reach = max(1, round(label.shape[0] / 100))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    coarse = np.zeros_like(label)
    for value in np.unique(label):
        core = cv2.erode((label == value).astype(np.uint8), kernel)
        outlines, _ = cv2.findContours(core, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        polygons = [cv2.approxPolyDP(o, 0.8 * reach, True) for o in outlines]
        large = [p for p in polygons if cv2.contourArea(p) > 8 * reach**2]
        cv2.fillPoly(coarse, large, int(value))  # even-odd rule: holes stay open
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
    """Writes the data set in the folder layout of Cityscapes' download.

    It writes ``leftImg8bit/{train,val,train_extra}``, ``gtFine/{train,val}`` with labelIds and
    instanceIds, and ``gtCoarse/train_extra`` with coarse polygons. The folder ``annotations`` holds
    the labels of train and val in COCO's forms, panoptic and instances. Until the folder is
    complete, its name ends in ``.partial``.

    Args:
        root: Folder to make.
        num_train: Number of training scenes with fine labels.
        num_val: Number of validation scenes with fine labels.
        num_extra: Number of scenes with coarse labels.
        size: Size (h, w) of a scene in pixels, at least 64x128.
        seed: Seed of the data set; a scene depends on this seed, its split and its number alone.
        progress: Whether to show a progress bar.

    Returns:
        Whether the data set was drawn; False if ``root`` already holds the same data set.

    Raises:
        UserError: ``root`` is a file or a folder with other content, a number of scenes is
            negative, all are 0, or ``size`` is too small.
    """
    root = Path(root).resolve()
    counts = {'train': num_train, 'val': num_val, 'train_extra': num_extra}
    _check_size(size)
    _check_counts(counts)
    recipe = json.dumps({'version': VERSION, **counts, 'size': list(size), 'seed': seed})
    if (root / RECIPE).is_file() and (root / RECIPE).read_text() == recipe:
        return False
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f'{root} exists and holds other data: remove it or name another folder')
    partial = root.with_name(root.name + '.partial')
    if partial.exists():
        shutil.rmtree(partial)
    scenes = [(split, i) for split, count in counts.items() for i in range(count)]
    coco = {split: CocoLabels(partial, split) for split in ('train', 'val') if counts[split]}
    for split, i in track(scenes, 'Drawing streets', disable=not progress):
        drawing = draw_scene(f'{seed} {split} {i}', size)
        name = _write(partial, split, i, drawing)
        if split in coco:
            coco[split].add(name, drawing.instance_ids)
    for labels in coco.values():
        labels.finish()
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
        raise UserError(f'{counts} scenes: give numbers of 0 or more, and at least one above 0')


def _write(root: Path, split: str, index: int, drawing: Drawing) -> str:
    """Writes the image and its labels; returns the path of the image below its split."""
    city = CITIES[split][index % len(CITIES[split])]
    stem = f'{city}_{index:06d}_000019'
    image = f'{city}/{stem}_leftImg8bit.png'
    files = {f'leftImg8bit/{split}/{image}': drawing.image}
    if split == 'train_extra':
        label = f'gtCoarse/{split}/{city}/{stem}_gtCoarse_labelIds.png'
        files[label] = coarse_labels(drawing.label)
    else:
        label = f'gtFine/{split}/{city}/{stem}_gtFine'
        files[f'{label}_labelIds.png'] = drawing.label
        files[f'{label}_instanceIds.png'] = drawing.instance_ids
    for name, array in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), array):
            raise UserError(f'{path} could not be written: is the disk full?')
    return image
