"""Pictures of segments: objects one by one in colours that differ, with class names and scores."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

import cv2
import numpy as np
from torch import Tensor

from .pictures import FONT, FONT_SIZE, MARGIN, Palette

MIN_SCORE = 0.3  # objects with lower scores are not drawn
READABLE = 800  # pixels, width from which names have room; smaller images are enlarged
THING_COLORS = 24  # number of hues of objects before they repeat
CLOSE = 60  # distance of an object's colour from those of the stuff, in RGB


class Shape(NamedTuple):
    """A segment or object to draw.

    Args:
        mask: Pixels, (H, W), bool.
        label: Class index.
        thing: Whether it gets a colour of its own; stuff has the colour of its class.
        score: Score in [0, 1]; None for a label.
        crowd: Whether it is a crowd of objects.
    """

    mask: np.ndarray
    label: int
    thing: bool = True
    score: float | None = None
    crowd: bool = False


def shapes_of_map(panoptic_seg: Tensor, segments: Sequence[Mapping[str, Any]]) -> list[Shape]:
    """Shapes of a map of segment ids, (1, H, W), and its segments."""
    ids = panoptic_seg[0].cpu().numpy()
    return [
        Shape(
            ids == item['id'],
            item['category_id'],
            item['isthing'],
            item.get('score'),
            item.get('iscrowd', False),
        )
        for item in segments
    ]


def shapes_of_instances(instances: Any, min_score: float = MIN_SCORE) -> list[Shape]:
    """Shapes of objects with ``masks`` (M, H, W) and ``labels`` (M,), and others where they exist.

    Args:
        instances: ``InstanceData``; predictions have ``scores`` (M,), labels ``iscrowd`` (M,).
        min_score: Score below which a prediction is omitted.
    """
    scores = instances.scores.tolist() if 'scores' in instances else [None] * len(instances)
    crowds = instances.iscrowd.tolist() if 'iscrowd' in instances else [False] * len(instances)
    masks = instances.masks.cpu().numpy()
    return [
        Shape(mask, label, True, score, crowd)
        for mask, label, score, crowd in zip(
            masks, instances.labels.tolist(), scores, crowds, strict=True
        )
        if score is None or score >= min_score
    ]


def draw_shapes(
    image: np.ndarray,
    shapes: Sequence[Shape],
    classes: Sequence[str],
    palette: Palette,
    *,
    min_width: int = READABLE,
) -> np.ndarray:
    """Shapes over the image, with outlines, class names and scores.

    Objects are drawn from the lowest to the highest score, then from large to small. A name is
    omitted where the shape is too small for it or a larger shape's name is in the way.

    Args:
        image: Image, uint8 (H, W, 3), RGB.
        shapes: Shapes of the size of the image.
        classes: Names of the classes.
        palette: Colours of the classes.
        min_width: Width of the picture in pixels up to which it is enlarged by a whole number.
    """
    factor = max(1, ceil(min_width / image.shape[1]))
    picture = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    shapes = [
        shape._replace(mask=shape.mask.repeat(factor, 0).repeat(factor, 1))
        for shape in sorted(shapes, key=lambda s: (s.thing, s.score or 0, -int(s.mask.sum())))
        if shape.mask.any()
    ]
    colors = _colors(shapes, palette)
    for shape, color in zip(shapes, colors, strict=True):
        picture[shape.mask] = (picture[shape.mask] * 0.45 + np.array(color) * 0.55).astype(np.uint8)
    for shape, color in zip(shapes, colors, strict=True):
        mask = shape.mask.astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        edge = (255, 255, 255) if shape.thing else tuple(value // 2 for value in color)
        cv2.drawContours(picture, outlines, -1, edge, 1, cv2.LINE_AA)
    _write_names(picture, shapes, colors, classes)
    return picture


def _colors(shapes: Sequence[Shape], palette: Palette) -> list[tuple[int, ...]]:
    """Colour of each shape: that of the class for stuff, one of bright hues for an object."""
    used = np.array([palette[s.label] for s in shapes if not s.thing] or [(0, 0, 0)], float)
    hues = (np.arange(THING_COLORS) * 0.618034 % 1 * 180).astype(np.uint8)  # neighbours differ
    light = np.where(np.arange(THING_COLORS) % 2, 255, 200).astype(np.uint8)
    hsv = np.stack([hues, np.full_like(hues, 210), light], -1)[None]
    bright = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    distance = np.linalg.norm(bright[:, None] - used, axis=2).min(1)
    bright = bright[distance >= CLOSE] if (distance >= CLOSE).any() else bright
    colors, number = [], 0
    for shape in shapes:
        colors.append(
            tuple(map(int, bright[number % len(bright)] if shape.thing else palette[shape.label]))
        )
        number += shape.thing
    return colors


def _write_names(
    picture: np.ndarray,
    shapes: Sequence[Shape],
    colors: Sequence[tuple[int, ...]],
    classes: Sequence[str],
) -> None:
    """Writes names in boxes of the shapes' colours, those of large shapes first."""
    taken = np.zeros(picture.shape[:2], bool)
    order = sorted(range(len(shapes)), key=lambda i: -int(shapes[i].mask.sum()))
    for i in order:
        shape = shapes[i]
        text = classes[shape.label].encode(errors='replace').decode()
        text += ' (crowd)' if shape.crowd else ''
        text += '' if shape.score is None else f' {shape.score:.2f}'
        (width, height), _ = cv2.getTextSize(text, FONT, FONT_SIZE, 1)
        width, height = width + MARGIN, height + MARGIN
        rows, columns = shape.mask.any(1).sum(), shape.mask.any(0).sum()
        if columns < 0.6 * width or rows < height or shape.mask.sum() < 0.5 * width * height:
            continue
        # The centre is the pixel farthest from the outline.
        inside = cv2.distanceTransform(
            np.pad(shape.mask.astype(np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_3
        )[1:-1, 1:-1]
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        left = int(np.clip(x - width // 2, 0, max(picture.shape[1] - width, 0)))
        top = int(np.clip(y - height // 2, 0, max(picture.shape[0] - height, 0)))
        box = slice(top, top + height), slice(left, left + width)
        if taken[box].any():
            continue
        taken[box] = True
        dark = sum(colors[i]) < 330
        cv2.rectangle(picture, (left, top), (left + width, top + height), colors[i], cv2.FILLED)
        origin = left + MARGIN // 2, top + height - MARGIN // 2
        ink = (255, 255, 255) if dark else (0, 0, 0)
        cv2.putText(picture, text, origin, FONT, FONT_SIZE, ink, 1, cv2.LINE_AA)
