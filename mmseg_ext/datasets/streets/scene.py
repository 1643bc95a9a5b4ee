"""The state of a scene during drawing: camera, light, plan of the street, canvas and brushes."""

import math
import random
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import lru_cache

import cv2
import numpy as np

from .shapes import Model

Colour = tuple[float, float, float]  # blue, green, red, 0 to 255


class Id(IntEnum):
    """Cityscapes' labelIds; the first five are ignored in training."""

    EGO, BORDER, STATIC, PARKING, RAILS = 1, 3, 4, 9, 10
    ROAD, SIDEWALK, BUILDING, WALL, FENCE = 7, 8, 11, 12, 13
    POLE, LIGHT, SIGN, VEGETATION, TERRAIN, SKY = 17, 19, 20, 21, 22, 23
    PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = 24, 25, 26, 27, 28, 31, 32, 33


# Cityscapes' evaluation of instances omits those below 100 of 1024x2048 pixels.
SMALLEST = 100 / (1024 * 2048)
FIRST_THING = Id.PERSON  # objects of this and higher ids are counted one by one

_PAINT: dict[str, list[Colour]] = {
    'car': [(35, 33, 32), (70, 68, 66), (120, 118, 116), (170, 170, 168), (215, 215, 215),
            (50, 40, 140), (110, 60, 30), (70, 90, 60), (140, 150, 165), (60, 80, 110)],
    'bus': [(60, 170, 225), (215, 215, 220), (45, 45, 175), (140, 80, 40), (90, 130, 60)],
    'tram': [(50, 60, 190), (210, 215, 215), (60, 190, 220), (120, 100, 60), (80, 110, 50)],
    'truck': [(215, 215, 215), (150, 90, 50), (60, 60, 170), (70, 120, 70), (110, 120, 130)],
    'wall': [(150, 175, 190), (130, 140, 150), (90, 105, 140), (175, 185, 190), (140, 180, 200),
             (75, 85, 120), (110, 115, 115), (165, 165, 185), (120, 150, 175), (190, 195, 195)],
    'cloth': [(40, 38, 38), (110, 70, 50), (60, 60, 130), (90, 90, 90), (170, 170, 175),
              (60, 90, 70), (50, 45, 160), (120, 120, 60), (80, 110, 150)],
    'skin': [(140, 165, 215), (110, 140, 190), (70, 95, 140), (50, 65, 95)],
    'hair': [(26, 26, 28), (35, 50, 72), (70, 105, 140), (125, 128, 130), (30, 38, 50)],
    'leaf': [(50, 95, 75), (40, 80, 55), (55, 105, 95), (45, 75, 70), (60, 90, 90)],
}  # fmt: skip
# sky at the top, sky at the horizon, visibility in metres, sun, exposure, colour cast, probability
_WEATHER: list[tuple[Colour, Colour, float, bool, float, Colour, float]] = [
    ((215, 150, 95), (235, 215, 190), 350, True, 1.35, (0.97, 1.0, 1.03), 4),  # sunny
    ((215, 205, 200), (235, 232, 228), 180, False, 1.25, (1.02, 1.0, 0.98), 4),  # overcast
    ((150, 145, 140), (190, 188, 185), 120, False, 1.0, (1.05, 1.0, 0.95), 2),  # dull
    ((190, 150, 120), (150, 195, 240), 220, True, 1.1, (0.88, 0.98, 1.08), 2),  # low sun
    ((120, 85, 60), (160, 140, 130), 150, False, 0.7, (1.12, 1.0, 0.92), 1),  # dusk
]
_GRAIN = np.full(256, 10, np.int32)  # strength of the texture by label
_GRAIN[[Id.ROAD, Id.SIDEWALK, Id.BUILDING, Id.WALL, Id.FENCE]] = 16, 22, 20, 30, 20
_GRAIN[[Id.VEGETATION, Id.TERRAIN, Id.SKY, Id.CAR, Id.BUS]] = 44, 44, 2, 6, 5
_FLAT = np.zeros(256, bool)
_FLAT[[Id.ROAD, Id.SIDEWALK, Id.PARKING, Id.RAILS, Id.TERRAIN]] = True


def lighter(colour: Colour, gain: float) -> Colour:
    """Multiplies a colour by ``gain``."""
    return colour[0] * gain, colour[1] * gain, colour[2] * gain


@lru_cache(maxsize=4)
def noise(height: int, width: int) -> np.ndarray:
    """Cloudy noise of several octaves, uint8 around 128."""
    source = np.random.RandomState(0)
    total = np.zeros((height, width), np.int32)
    for octave in range(7):
        cell = 2**octave
        grid = source.randint(0, 256, (height // cell + 2, width // cell + 2)).astype(np.uint8)
        layer = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
        total += (layer.astype(np.int32) - 128) * (octave + 2)
    return np.clip(128 + total // 20, 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _sensor_noise(count: int) -> np.ndarray:
    """Normal noise of standard deviation 16, int16, (count + 4096,); a scene takes a part of it."""
    return np.rint(np.random.RandomState(1).standard_normal(count + 4096) * 16).astype(np.int16)


@lru_cache(maxsize=4)
def _vignette(height: int, width: int) -> np.ndarray:
    """Lens shading, int32: 256 in the middle, about 190 in the corners."""
    y, x = np.mgrid[:height, :width]
    radius = ((2 * y - height) ** 2 * 1024 // height**2) + ((2 * x - width) ** 2 * 1024 // width**2)
    return 256 - radius * 33 // 1024


class Scene:
    """State of a scene during drawing: canvas, camera, light, plan of the street, draw calls."""

    def __init__(self, seed: int | str, size: tuple[int, int]) -> None:
        self.rng = rng = random.Random(seed)
        self.h, self.w = size
        self.image = np.zeros((*size, 3), np.uint8)
        self.label = np.full(size, Id.SKY, np.uint8)
        self.objects = np.zeros(size, np.uint16)  # number of the draw call of each labelled pixel
        self.object = 0  # number of the object that is drawn
        self.shade = np.full(size, 255, np.uint8)  # light on the ground, less in shadows
        self.draw_calls: list[tuple[float, int, Callable[[], None]]] = []  # depth, object, brush
        self.num_objects = 0
        self.shadows: list[tuple[np.ndarray, int]] = []

        self.focal = self.w * rng.uniform(1.0, 1.25)
        self.horizon = self.h * rng.uniform(0.38, 0.48)
        self.centre = self.w * rng.uniform(0.42, 0.58)
        self.camera = rng.uniform(1.2, 1.6)  # height in metres
        self.bend = rng.gauss(0, 3e-4)  # curvature: x += bend * z^2

        weather = rng.choices(_WEATHER, [w[-1] for w in _WEATHER])[0]
        self.zenith, self.fog, self.sight, sunny, self.exposure, self.cast, _ = weather
        azimuth = rng.choice((-1, 1)) * rng.uniform(0.3, 1.4)
        self.sun = (
            (azimuth, rng.uniform(-0.5, 0.7)) if sunny else None
        )  # (x, z) of the shadow of 1 m
        self._plan()

    def _plan(self) -> None:
        """Chooses lanes, kerbs, verges, sidewalks and the crossing."""
        rng = self.rng
        self.urban = rng.choices((0.9, 0.5, 0.1), (5, 3, 2))[0]
        forward, opposite = rng.choice((1, 1, 2)), rng.choice((0, 1, 1, 2))
        median = rng.choices((0.0, 3.2, 2.0), (8, 1.6, 0.7))[0] if opposite else 0.0
        self.median = (-1.7 - median, -1.7) if median else None
        self.rails = median == 3.2
        self.lanes = [(3.3 * i, 0.0) for i in range(forward)]
        self.lanes += [(-3.3 - median - 3.3 * i, math.pi) for i in range(opposite)]
        self.parking = [rng.random() < 0.55, rng.random() < 0.55]
        right = 1.7 + 3.3 * (forward - 1) + 2.2 * self.parking[1]
        left = -1.7 - median - 3.3 * opposite - 2.2 * self.parking[0]
        self.kerb = (left, right)
        green = 0.35 / (1 + 0.3 * self.urban)
        self.verge = [rng.uniform(0.8, 3) if rng.random() < green else 0.0 for _ in range(2)]
        self.walk = [rng.uniform(1.8, 5.0) for _ in range(2)]
        self.cross = rng.uniform(13, 50) if rng.random() < 0.45 else None
        self.end = rng.choice((80.0, 110.0, 140.0))

    # ---- camera and brushes ----

    def project(
        self, x: np.ndarray | float, y: np.ndarray | float, z: np.ndarray | float
    ) -> np.ndarray:
        """Pixels (..., 2), as (u, v), of coordinates in metres, which broadcast together."""
        z = np.maximum(z, 0.8)
        u = self.centre + self.focal * (x / z + self.bend * z)
        v = self.horizon + self.focal * (self.camera - y) / z
        uv = np.empty((*np.broadcast(u, v).shape, 2))
        uv[..., 0], uv[..., 1] = u, v
        return uv

    def fill(
        self,
        polygons: Sequence[np.ndarray] | np.ndarray,
        colour: Colour | None,
        label: int | None = None,
    ) -> None:
        """Fills polygons (P, 2) of pixels; without ``label`` the labels below them stay."""
        points = np.rint(np.asarray(polygons) * 16).astype(np.int32)
        self._fill(list(points), colour, label)

    def _fill(self, points: list[np.ndarray], colour: Colour | None, label: int | None) -> None:
        if colour is not None:
            cv2.fillPoly(self.image, points, colour, cv2.LINE_AA, 4)
        if label is not None:
            cv2.fillPoly(self.label, points, label, cv2.LINE_8, 4)
            cv2.fillPoly(self.objects, points, self.object, cv2.LINE_8, 4)

    def tone(self, colour: Colour, z: float, gain: float = 1.0) -> Colour:
        """A colour times ``gain``, mixed with the fog of ``z`` metres of air."""
        air = z / (z + self.sight)
        (b, g, r), (fog_b, fog_g, fog_r), k = colour, self.fog, gain * (1 - air)
        return b * k + fog_b * air, g * k + fog_g * air, r * k + fog_r * air

    def lit(self, x: float) -> float:
        """Brightness of a plane at ``x`` that faces the road."""
        return 0.92 if self.sun is None else 1.12 if x * self.sun[0] > 0 else 0.66

    def crop(self, height: int, width: int) -> np.ndarray:
        """A random crop of the noise, at most as large as the canvas."""
        tile = noise(self.h + 128, self.w + 128)
        i, j = self.rng.randrange(129), self.rng.randrange(129)
        return tile[i : i + height, j : j + width]

    def pick(self, name: str, spread: float = 0.2) -> Colour:
        """A colour of a palette, varied in brightness and a little in hue."""
        rng, (b, g, r) = self.rng, self.rng.choice(_PAINT[name])
        k = 1 + spread * (2 * rng.random() - 1)
        return b * k * (0.94 + 0.12 * rng.random()), g * k, r * k * (0.94 + 0.12 * rng.random())

    def draw(
        self,
        model: Model,
        at: tuple[float, float, float],
        scale: tuple[float, float, float],
        colours: dict[str, Colour],
        label: int,
        yaw: float = 0.0,
    ) -> None:
        """Draws a model at (x, y, z), turned by ``yaw``; ``scale`` is (width, height, length)."""
        s, y, ahead = (model.points * scale).T
        sin, cos = math.sin(yaw), math.cos(yaw)
        uv = self.project(at[0] + s * cos + ahead * sin, at[1] + y, at[2] - s * sin + ahead * cos)
        if uv[:, 0].max() < 0 or uv[:, 0].min() > self.w:
            return
        points, facing = np.rint(uv * 16).astype(np.int32), _faces_camera(uv, model)
        for (start, stop, code, labelled), visible in zip(model.spans, facing, strict=True):
            if visible:
                colour = None if code == '.' else colours[code]
                self._fill([points[start:stop]], colour, label if labelled else None)

    def add(
        self,
        z: float,
        draw: Callable[[], None],
        box: tuple[float, float, float, float] | None = None,
        low: float = 0.0,
        high: float = 0.0,
        *,
        new_object: bool = True,
    ) -> None:
        """Adds a draw call at depth ``z``; ``box`` (x0, x1, z0, z1), low to high, casts shadows.

        Without ``new_object`` it draws a part of the object of the call before.
        """
        self.num_objects += new_object
        self.draw_calls.append((z, self.num_objects, draw))
        if box is None:
            return
        corners = np.array([(x, d) for x in box[:2] for d in box[2:]])
        if low == 0 and high < 5:
            self.shadows.append((corners, 95))
        if self.sun and high:
            reach = [corners + np.array(self.sun) * height for height in (low, high)]
            self.shadows.append((np.concatenate(reach), 135))

    def instance_ids(self) -> np.ndarray:
        """Cityscapes' instanceIds, uint16 (h, w): 1000 id + number for objects, else the labelId.

        Objects below ``SMALLEST`` have the labelId alone, as groups in Cityscapes, whose outlines
        are not visible.
        """
        ids = self.label.astype(np.uint16)
        thing = self.label >= FIRST_THING
        keys = self.label[thing].astype(np.uint32) << 16 | self.objects[thing]
        pairs, position, area = np.unique(keys, return_inverse=True, return_counts=True)
        values, counts = (pairs >> 16).astype(np.uint16), dict.fromkeys(map(int, Id), 0)
        for i, label in enumerate(values.tolist()):
            if area[i] >= SMALLEST * self.label.size:
                values[i] = 1000 * label + counts[label]
                counts[label] += 1
        ids[thing] = values[position]
        return ids

    def photograph(self) -> np.ndarray:
        """The final image: canvas with texture, vignette, blur, exposure, colour cast and noise."""
        rng = self.rng
        gain = 256 + ((self._texture() * _GRAIN[self.label]) >> 6)
        gain = ((gain * _vignette(self.h, self.w)) >> 9).astype(np.uint16)  # at most 180
        image = np.minimum((self.image * gain[..., None]) >> 7, 255).astype(np.uint8)
        if rng.random() < 0.8:
            image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.3, 0.75) * max(1, self.h / 512))
        gamma, exposure = rng.uniform(0.85, 1.15), self.exposure * rng.uniform(0.85, 1.15)
        ramp = 255 * (np.arange(256) / 255) ** gamma * exposure
        table = np.stack([ramp * c * rng.uniform(0.96, 1.04) for c in self.cast], -1)
        image = cv2.LUT(image, np.rint(table.clip(0, 255)).astype(np.uint8)[None])
        start, level = rng.randrange(4096), rng.randrange(2, 8)
        grain = _sensor_noise(image.size)[start : start + image.size].reshape(image.shape)
        return cv2.add(image, (grain * level) >> 5, dtype=cv2.CV_8U)

    def _texture(self) -> np.ndarray:
        """Noise around 0, int32; pixels of the ground get it in perspective."""
        texture = self.crop(self.h, self.w).astype(np.int32) - 128
        first = int(self.horizon) + 1
        z = self.focal * self.camera / (np.arange(first, self.h) - self.horizon)[:, None]
        x = (np.arange(self.w) - self.centre) * z / self.focal
        turns = ((metres * 30 + 200).astype(np.int32) & 1023 for metres in (z, x))
        row, column = (np.minimum(turn, 1023 - turn) for turn in turns)  # mirrored, without seams
        fade = np.minimum(256, 256 * 14 / z).astype(
            np.int32
        )  # grains of distant ground average out
        ground = ((noise(512, 512)[row, column].astype(np.int32) - 128) * fade) >> 8
        below = texture[first:]
        np.copyto(below, ground, where=_FLAT[self.label[first:]])
        return texture


def _faces_camera(uv: np.ndarray, model: Model) -> list[bool]:
    """Whether each polygon faces the camera; all do unless the model is solid."""
    if not model.solid:
        return [True] * len(model.spans)
    a, b, c = (uv[model.starts + i] for i in range(3))
    (bu, bv), (cu, cv) = (b - a).T, (c - a).T
    return (bu * cv - bv * cu < 0).tolist()
