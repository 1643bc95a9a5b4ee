"""Sky and ground: road with marks, sidewalks and verges, and the shadows on them."""

import math

import cv2
import numpy as np

from .scene import Colour, Id, Scene, lighter

_STEPS = np.arange(9) / 8


def sky(s: Scene) -> None:
    """Draws the sky with clouds down to the horizon."""
    rows = min(s.h, int(s.horizon) + 2)
    t = np.arange(rows)[:, None, None] * 256 // rows
    top, low = np.array([s.zenith, s.fog]).astype(int)
    blue = ((top * (256 - t) + low * t) >> 8).astype(np.uint16)
    field = s.crop(rows // 2 + 1, s.w // 4 + 1)
    clouds = cv2.resize(field, (s.w, rows), interpolation=cv2.INTER_LINEAR_EXACT)
    clear = s.rng.randrange(95, 190)
    cover = np.clip((np.arange(256) - clear) * 4, 0, 200).astype(np.uint16)[clouds][..., None]
    white = np.minimum(low + 12, 255).astype(np.uint16)
    s.image[:rows] = (blue * (256 - cover) + white * cover) >> 8


def _strip(
    s: Scene, x0: float, x1: float, z0: float, z1: float, colour: Colour, label: int | None
) -> None:
    """Draws a band of the ground that bends with the street."""
    z = 1 / (1 / max(z0, 1.0) + _STEPS * (1 / z1 - 1 / max(z0, 1.0)))  # even steps in image rows
    edges = [s.project(x0, 0.0, z), s.project(x1, 0.0, z)[::-1]]
    s.fill([np.concatenate(edges)], s.tone(colour, (z0 * z1) ** 0.5 / 2), label)


def ground(s: Scene) -> None:
    """Draws sidewalks, verges, road, median and crossing."""
    rng = s.rng
    grey = rng.uniform(80, 135)
    asphalt = (grey * rng.uniform(0.97, 1.06), grey, grey * rng.uniform(0.95, 1.04))
    tint = rng.uniform(0.95, 1.45)
    paving = (grey * tint * 0.97, grey * tint, grey * tint * rng.uniform(0.98, 1.12))
    grass = (55 * tint, 105 * tint, 90 * tint * rng.uniform(0.8, 1.2))
    base, below = (paving, Id.SIDEWALK) if rng.random() < s.urban else (grass, Id.TERRAIN)
    s.fill(
        [np.array([(0, s.horizon), (s.w, s.horizon), (s.w, s.h), (0, s.h)])],
        s.tone(base, 60),
        below,
    )
    _strip(s, -90, 90, 1, 60, base, below)
    for side, kerb in enumerate(s.kerb):
        out = 1 if side else -1
        inner = kerb + out * s.verge[side]
        _strip(s, inner, inner + out * s.walk[side], 1, 250, paving, Id.SIDEWALK)
        if s.verge[side]:
            _strip(s, kerb, inner, 1, 250, grass, Id.TERRAIN)
        _strip(s, kerb, kerb + out * 0.16, 1, 80, lighter(paving, 1.4), Id.SIDEWALK)
    _strip(s, *s.kerb, 1, 300, asphalt, Id.ROAD)
    for side, kerb in enumerate(s.kerb):
        if s.parking[side] and rng.random() < 0.3:
            _strip(s, kerb, kerb - (2.1 if side else -2.1), 1, 120, paving, Id.PARKING)
    if s.median:
        bed = rng.choice((grass, paving, asphalt))
        _strip(s, *s.median, 1, 250, bed, Id.RAILS if s.rails else Id.TERRAIN)
        for x in (-4.0, -2.55) if s.rails else ():
            _strip(s, x, x + 0.08, 1, 120, (95, 100, 105), None)
    if s.cross:
        _strip(s, -100, 100, s.cross, s.cross + 7.5, asphalt, Id.ROAD)
    _marks(s, grey)


def _marks(s: Scene, grey: float) -> None:
    """Draws lane marks, zebra crossing, repaired patches and manholes."""
    rng = s.rng
    for _ in range(rng.randrange(5)):
        x, z = rng.uniform(*s.kerb), rng.uniform(4, 30)
        dark = grey * rng.uniform(0.75, 1.1)
        _strip(s, x, x + rng.uniform(0.6, 2), z, z + rng.uniform(1, 10), (dark, dark, dark), None)
    if rng.random() < 0.5:
        a = np.linspace(0, 2 * math.pi, 13)
        x, z = rng.uniform(-2, 2), rng.uniform(6, 15)
        s.fill([s.project(x + 0.35 * np.cos(a), 0.0, z + 0.35 * np.sin(a))], (grey * 0.6,) * 3)
    white = (rng.uniform(170, 225),) * 3
    gap, start = rng.choice((4.0, 6.0, 9.0)), rng.uniform(1, 5)
    for x, yaw in s.lanes:
        border = x + (-1.65 if yaw == 0 else 1.65)
        if not (s.median and x in (0.0, -3.3 - 3.2)):
            for z in np.arange(start, 70, gap):
                _strip(s, border - 0.07, border + 0.07, z, z + gap / 2, white, None)
    if rng.random() < 0.5:
        for kerb, inward in zip(s.kerb, (0.3, -0.3), strict=True):
            _strip(s, kerb + inward, kerb + inward * 1.4, 1, 90, white, None)
    if s.cross and rng.random() < 0.7:
        for x in np.arange(s.kerb[0] + 0.4, s.kerb[1] - 0.4, 1.0):
            _strip(s, x, x + 0.5, s.cross - 4.5, s.cross - 1.2, white, None)
        _strip(s, -1.5, 1.5, s.cross - 6, s.cross - 5.6, white, None)


def cast_shadows(s: Scene) -> None:
    """Darkens the ground where objects cast shadows."""
    for corners, light in s.shadows:
        hull = cv2.convexHull(s.project(corners[:, 0], 0.0, corners[:, 1]).astype(np.float32))
        cv2.fillPoly(s.shade, [np.rint(hull * 16).astype(np.int32)], light, cv2.LINE_8, 4)
    first = int(s.horizon) + 1
    soft = cv2.blur(s.shade[first:], (3, 3)).astype(np.uint16)[..., None]
    s.image[first:] = (s.image[first:] * soft) >> 8


def own_car(s: Scene) -> None:
    """Draws the bonnet of the camera's car (in most scenes) and the unlabelled rim."""
    if s.rng.random() < 0.7:
        high, mid = s.h * s.rng.uniform(0.04, 0.11), s.w * s.rng.uniform(0.45, 0.55)
        x = np.linspace(-0.75, 0.75, 25)
        top = np.stack([mid + s.w * x, s.h - high * (1 - x * x * 1.3)], -1)
        corners = np.array([(s.w * 2, s.h * 2), (-s.w * 1, s.h * 2)])
        paint = s.pick('car')
        for i in range(4):  # four bands: the front reflects the sky
            shape = np.concatenate([top + (0, high * i * (4 - i) / 14), corners])
            s.fill([shape], s.tone(paint, 0.12 * i * s.sight, 0.6), Id.EGO)
    rim = max(1, s.h // 200)
    for edge in (s.label[:rim], s.label[-rim:], s.label[:, :rim], s.label[:, -rim:]):
        edge[:] = Id.BORDER
