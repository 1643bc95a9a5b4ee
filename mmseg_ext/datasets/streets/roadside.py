"""Objects beside the road: houses, woods, walls, fences and trees."""

import math
from functools import lru_cache, partial

import cv2
import numpy as np

from .scene import Colour, Id, Scene, noise


@lru_cache(maxsize=1)
def _crowns() -> list[np.ndarray]:
    """Eight irregular blobs (96, 96), uint8: about 235 in the middle, 65 at the rim."""
    y, x = np.mgrid[-48:48, -48:48]
    fall = 235 - (x * x + y * y) * 170 // (46 * 46)
    rough = noise(384, 192).astype(int) - 128
    tiles = [rough[i : i + 96, j : j + 96] for i in range(0, 384, 96) for j in (0, 96)]
    return [np.clip(fall + tile, 0, 255).astype(np.uint8) for tile in tiles]


def _foliage(s: Scene, x: float, y: float, z: float, rx: float, ry: float, colour: Colour) -> None:
    """Draws an irregular blob of leaves around (x, y, z), lit from above."""
    u, v = s.project(x, y, z).tolist()
    k = s.focal / max(z, 0.8)
    w, h = max(2, int(2 * rx * k)), max(2, int(2 * ry * k))
    left, top = int(u) - w // 2, int(v) - h // 2
    x0, x1, y0, y1 = max(left, 0), min(left + w, s.w), max(top, 0), min(top + h, s.h)
    if x0 >= x1 or y0 >= y1 or w > 4 * s.w:
        return
    visible = (x1 - x0, y1 - y0)
    region = (_crown_slice(y0 - top, y1 - top, h), _crown_slice(x0 - left, x1 - left, w))
    shape, light = (
        cv2.resize(crown[region], visible, interpolation=cv2.INTER_LINEAR_EXACT)
        for crown in s.rng.sample(_crowns(), 2)
    )
    inside = (cv2.add(shape, s.crop(visible[1], visible[0]) >> 2) > 135).astype(np.uint8)
    rows = (np.arange(y0 - top, y1 - top)[:, None] * 60 // h).astype(np.uint8)
    bright = cv2.cvtColor(75 + np.right_shift(light, 1) - rows, cv2.COLOR_GRAY2BGR)
    shades = np.arange(256)[:, None] * np.array(s.tone(colour, z)) / 128
    leaves = cv2.LUT(bright, shades.clip(0, 255).astype(np.uint8)[None])
    cv2.copyTo(leaves, inside, s.image[y0:y1, x0:x1])
    np.copyto(s.label[y0:y1, x0:x1], np.uint8(Id.VEGETATION), where=inside > 0)


def _crown_slice(start: int, stop: int, length: int) -> slice:
    """Rows or columns of a crown (96 each) for ``start`` to ``stop`` of ``length`` pixels."""
    return slice(start * 96 // length, max(stop * 96 // length, start * 96 // length + 1))


def _tree(s: Scene, x: float, z: float, size: float) -> None:
    colour, rng = s.pick('leaf'), s.rng
    blobs = [
        (rng.uniform(-0.5, 0.5), rng.uniform(0.85, 1.25), rng.uniform(0.35, 0.5)) for _ in range(4)
    ]

    def draw() -> None:
        s.fill([s.project(x + np.array([-0.17, 0.17, 0.1, -0.1]), np.array([0, 0, size, size]), z)],
               s.tone((45, 55, 65), z), Id.VEGETATION)  # fmt: skip
        for dx, height, r in blobs:
            _foliage(s, x + dx * size * 0.6, height * size, z, r * size, r * size * 0.9, colour)

    r = size * 0.5
    s.add(z, draw, (x - r, x + r, z - r, z + r), size * 0.6, size * 1.4)


def _hedge(s: Scene, x: float, z0: float, z1: float, height: float) -> None:
    """Adds bushes or a wood along the street."""
    colour = s.pick('leaf')
    z = z1
    while z > z0:
        r = max(height, z * 0.1) * s.rng.uniform(0.6, 0.9)
        at = x + math.copysign(s.rng.uniform(0, height), x)
        s.add(z + 0.1, partial(_foliage, s, at, height * 0.42, z, r, height * 0.62, colour))
        z -= max(height * 0.7, z * 0.07)
    s.add(z1, lambda: None, (x, x + math.copysign(height, x), z0, z1), 0.0, height)


def _quads(s: Scene, x: float, y: np.ndarray, z: np.ndarray, dy: float, dz: float) -> np.ndarray:
    """Visible rectangles (M, 4, 2), in pixels, of a plane along the street.

    The rectangles have the centres ``y`` and ``z``, (N,), and the half sizes ``dy`` and ``dz``.
    """
    y4 = y[:, None] + dy * np.array([-1, -1, 1, 1])
    z4 = z[:, None] + dz * np.array([-1, 1, 1, -1])
    uv = s.project(x, y4, z4)
    u = uv[..., 0]
    return uv[(u.max(1) > 0) & (u.min(1) < s.w)]


def _plane(s: Scene, x: float, y0: float, y1: float, z0: float, z1: float) -> np.ndarray:
    return s.project(x, np.array([y0, y0, y1, y1]), np.array([z0, z1, z1, z0]))


def _building(s: Scene, x: float, z0: float, z1: float, floors: int) -> None:
    rng = s.rng
    base, lit, mid, out = s.pick('wall'), s.lit(x), (z0 + z1) / 2, math.copysign(1, x)
    height, ridge = floors * 3.1 + 1.2, rng.choice((0.0, 3.5))
    shop, cornice = rng.random() < 0.6 * s.urban, rng.random() < 0.5
    frame, tiles = rng.uniform(0.75, 1.45), rng.choice(((60, 70, 120), (80, 78, 80)))
    awning = s.pick('cloth', 0.5)

    def draw() -> None:
        if abs(x) * ridge > 7 * (height - s.camera):  # otherwise the eaves hide the roof
            across = x + out * np.array([0, 0, 7, 7])
            roof = s.project(
                across, height + ridge * np.array([0, 0, 1, 1]), np.array([z0, z1, z1, z0])
            )
            s.fill([roof], s.tone(tiles, mid), Id.BUILDING)
        outline = np.array([(0, 0), (14, 0), (14, height), (7, height + ridge), (0, height)])
        gable = s.project(x + out * outline[:, 0], outline[:, 1], z0)
        s.fill([gable], s.tone(base, z0, 0.85 if lit > 1 else 0.9), Id.BUILDING)
        s.fill([_plane(s, x, 0, height, z0, z1)], s.tone(base, mid, lit), Id.BUILDING)
        _windows(s, x, z0, z1, np.arange(shop, floors), s.tone(base, mid, lit * frame))
        if shop:
            s.fill([_plane(s, x, 0.4, 2.7, z0 + 0.5, z1 - 0.5)], s.tone((70, 66, 64), mid, frame))
            s.fill([_plane(s, x, 2.6, 3.3, z0 + 0.3, z1 - 0.3)], s.tone(awning, mid, lit))
        for level in (3.3, height - 0.2) if cornice else ():
            s.fill([_plane(s, x, level, level + 0.25, z0, z1)], s.tone(base, mid, lit * frame))

    s.add(z1, draw, (x, x + out * 12, z0, z1), 0.0, height)


def _windows(s: Scene, x: float, z0: float, z1: float, levels: np.ndarray, frame: Colour) -> None:
    rng, mid = s.rng, (z0 + z1) / 2
    pitch, glass = rng.uniform(2.2, 4.0), rng.uniform(35, 110)
    dz, dy = pitch * rng.uniform(0.28, 0.4), rng.uniform(0.6, 1.0)
    z, y = np.meshgrid(np.arange(z0 + 1.4, z1 - 1, pitch), 1.9 + 3.1 * levels)
    if not z.size:
        return
    s.fill(_quads(s, x, y.ravel(), z.ravel(), dy * 1.15, dz * 1.2), frame)
    panes = _quads(s, x, y.ravel(), z.ravel(), dy, dz)
    s.fill(panes, s.tone((glass * 1.1, glass, glass * 0.95), mid, rng.uniform(0.8, 1.0)))
    s.fill(
        panes[rng.randrange(3) :: 3], s.tone(s.fog, mid, rng.uniform(0.3, 0.8))
    )  # mirrors the sky


def _wall(s: Scene, x: float, z0: float, z1: float, height: float) -> None:
    base, cap = s.pick('wall', 0.3), s.rng.uniform(0.7, 1.3)
    bricks, lit = s.rng.random() < 0.6, s.rng.uniform(0.7, 1.1)

    def draw() -> None:
        mid = (z0 + z1) / 2
        s.fill([_plane(s, x, 0, height, z0, z1)], s.tone(base, mid, lit), Id.WALL)
        for y in np.arange(0.35, height, 0.35) if bricks else ():
            s.fill([_plane(s, x, y, y + 0.03, z0, z1)], s.tone(base, mid, lit * 0.8))
        s.fill(
            [_plane(s, x, height - 0.05, height + 0.12, z0, z1)], s.tone(base, mid, cap), Id.WALL
        )

    s.add(z1, draw, (x, x + 0.3, z0, z1), 0.0, height)


def _fence(s: Scene, x: float, z0: float, z1: float, height: float) -> None:
    """Adds planks or bars; as in Cityscapes, the gaps between bars are labelled fence too."""
    colour, solid = s.pick('car', 0.3), s.rng.random() < 0.35
    pitch = s.rng.choice((0.3, 0.5, 1.0))

    def draw() -> None:
        mid = (z0 + z1) / 2
        s.fill([_plane(s, x, 0, height, z0, z1)], s.tone(colour, mid) if solid else None, Id.FENCE)
        z = np.arange(z0, z1, pitch)
        s.fill(
            _quads(s, x, np.full(len(z), height / 2), z, height / 2, 0.03), s.tone(colour, mid, 0.8)
        )
        for y in (0.15, height - 0.1):
            s.fill([_plane(s, x, y, y + 0.09, z0, z1)], s.tone(colour, mid, 0.9))

    s.add(z1, draw, (x, x + 0.1, z0, z1), 0.0, height * (1 if solid else 0.3))


def roadside(s: Scene, side: int) -> None:
    """Adds houses, woods, walls and fences on one side (0 left, 1 right), from near to far."""
    rng, out = s.rng, 1 if side else -1
    front = s.kerb[side] + out * (s.verge[side] + s.walk[side])
    u = s.urban
    z = 3.0
    while z < s.end:
        length = rng.uniform(9, 24)
        if s.cross and z + length > s.cross - 3 and z < s.cross + 9:
            length = s.cross - 3 - z
            if length < 4:
                z = s.cross + 10
                continue
        kind = rng.choices(
            'bvwfo', (0.1 + u, 1 - 0.9 * u, 0.28 - 0.2 * u, 0.6 - 0.4 * u, 0.2 - 0.15 * u)
        )[0]
        if kind == 'b':
            floors = rng.randrange(3, 7) if rng.random() < u else rng.randrange(1, 4)
            _building(s, front + out * (0 if u > 0.6 else rng.uniform(0, 5)), z, z + length, floors)
        elif kind != 'o':
            _lot(s, kind, front, z, z + length)
        z += length + (0.0 if rng.random() < u else rng.uniform(0, 6))


def _lot(s: Scene, kind: str, front: float, z0: float, z1: float) -> None:
    """Adds a stretch without house front: a wood, or a wall or fence before houses or woods."""
    rng, out = s.rng, math.copysign(1, front)
    if kind == 'v':
        _hedge(s, front + out, z0, z1, rng.choice((1.2, 2.5, 6.0, 9.0)))
        return
    if rng.random() < 0.5:
        _building(s, front + out * rng.uniform(3, 8), z0, z1, rng.randrange(1, 4))
    elif rng.random() < 0.7:
        _hedge(s, front + out * 2, z0, z1, rng.choice((2.5, 5.0)))
    if kind == 'w':
        _wall(s, front, z0, z1 - 0.01, rng.uniform(0.9, 3.0))
    else:
        _fence(s, front, z0, z1 - 0.01, rng.uniform(0.9, 2.0))


def skyline(s: Scene) -> None:
    """Adds distant houses and woods across the view."""
    x, z = -110.0, 150.0
    while x < 110:
        width = s.rng.uniform(8, 22)
        if s.rng.random() < s.urban * 0.7:
            height = s.rng.uniform(7, 22)
            box = s.project(
                x + np.array([0, width, width, 0]), np.array([-1, -1, height, height]), z
            )
            s.add(z, partial(s.fill, [box], s.tone(s.pick('wall'), z), Id.BUILDING))
        else:
            args = (x + width / 2, 1.5, z, width * 0.8, s.rng.uniform(3, 9), s.pick('leaf'))
            s.add(z - 1, partial(_foliage, s, *args))
        x += width * 0.8


def trees(s: Scene) -> None:
    """Adds rows of trees along the kerbs and single trees behind the sidewalks."""
    rng = s.rng
    for side, kerb in enumerate(s.kerb):
        out = 1 if side else -1
        if rng.random() < 0.4:
            size, x = rng.uniform(3.5, 7), kerb + out * rng.uniform(0.8, 1.5)
            for z in np.arange(rng.uniform(7, 25), s.end, rng.uniform(7, 14)):
                _tree(s, x, float(z), size * rng.uniform(0.85, 1.15))
        for _ in range(rng.randrange(3)):
            x = kerb + out * (s.verge[side] + s.walk[side] + rng.uniform(1, 12))
            _tree(s, x, rng.uniform(12, 90), rng.uniform(3, 8))
