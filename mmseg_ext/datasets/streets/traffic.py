"""Objects on the street: vehicles, cycles, people, poles, lights and signs."""

import math
from functools import partial

import numpy as np

from . import shapes
from .scene import Colour, Id, Scene, lighter

# kind: sections from rear to front as (model, label, (width, height, length) in metres), palette
VEHICLES = {
    'sedan': ([(shapes.SEDAN, Id.CAR, (1.8, 1.45, 4.6))], 'car'),
    'hatch': ([(shapes.HATCH, Id.CAR, (1.75, 1.5, 4.0))], 'car'),
    'van': ([(shapes.HATCH, Id.CAR, (1.95, 2.05, 4.9))], 'car'),
    'bus': ([(shapes.BUS, Id.BUS, (2.5, 3.1, 12.0))], 'bus'),
    'tram': ([(shapes.TRAM, Id.TRAIN, (2.5, 3.5, 13.2))] * 2, 'tram'),
    'truck': (
        [(shapes.BOX, Id.TRUCK, (2.4, 3.3, 6.2)), (shapes.CAB, Id.TRUCK, (2.3, 2.6, 2.0))],
        'truck',
    ),
}
LAMPS: dict[str, Colour] = {
    'k': (26, 25, 24),
    'w': (225, 230, 230),
    'r': (40, 35, 180),
    'o': (50, 170, 235),
    'p': (215, 222, 222),
}


def vehicle(s: Scene, kind: str, x: float, z: float, yaw: float) -> float:
    """Adds a vehicle and returns its length.

    ``z`` is the depth of its near end, or of its middle if it crosses the street.
    """
    sections, palette = VEHICLES[kind]
    colours = _livery(s, palette)
    length = sum(size[2] for _, _, size in sections)
    sin, cos = math.sin(yaw), math.cos(yaw)
    middle, at = z + abs(cos) * length / 2, -length / 2
    facing = s.lit(x) if abs(cos) > 0.5 else 0.95
    for i, (model, label, (wide, high, long)) in enumerate(sections):
        centre = at + long / 2
        at += long
        px, pz = x + sin * centre, middle + cos * centre
        scale = (wide, high * s.rng.uniform(0.95, 1.05), long)
        dx, dz = (abs(cos) * wide + abs(sin) * long) / 2, (abs(sin) * wide + abs(cos) * long) / 2
        toned = {k: s.tone(c, pz, facing if k == 's' else 1) for k, c in colours.items()}
        draw = partial(s.draw, model, (px, 0.0, pz), scale, toned, label, yaw)
        box = (px - dx, px + dx, pz - dz, pz + dz)
        s.add(pz - dz, draw, box, 0.0, scale[1], new_object=i == 0)
    return length


def _livery(s: Scene, palette: str) -> dict[str, Colour]:
    """Colours of one vehicle by shape code."""
    paint, stripe, glass = s.pick(palette), s.pick(palette), s.rng.uniform(40, 75)
    colours = {
        'b': paint,
        's': paint,
        't': lighter(paint, 1.25),
        'm': stripe,
        'g': (glass * 1.15, glass, glass),
    }
    return {**colours, **LAMPS, 'd': (48, 47, 46), 'h': (135, 135, 135)}


def _kind(s: Scene) -> str:
    kind = s.rng.choices(('car', 'bus', 'truck'), (0.94, 0.03, 0.03))[0]
    return s.rng.choice(('sedan', 'hatch', 'sedan', 'hatch', 'van')) if kind == 'car' else kind


def _lanes(s: Scene) -> None:
    rng = s.rng
    for x, yaw in s.lanes:
        z = rng.uniform(10, 50)
        if rng.random() < 0.12:
            z = rng.uniform(4.2, 9)
            z += vehicle(s, rng.choice(('bus', *['sedan', 'hatch', 'van'] * 2)), x, z, yaw) + 4
        while z < 100:
            if rng.random() < 0.05 and z > 8:
                cycle(s, x + rng.uniform(-0.5, 0.5), z, yaw, motor=True)
                z += 3
            else:
                z += vehicle(s, _kind(s), x + rng.uniform(-0.3, 0.3), z, yaw)
            z += rng.uniform(3, 8) + rng.expovariate(1 / 18)
    if s.rails and s.median and rng.random() < 0.75:
        vehicle(s, 'tram', sum(s.median) / 2, rng.uniform(5, 40), rng.choice((0.0, math.pi)))


def _parked(s: Scene) -> None:
    rng = s.rng
    for side, kerb in enumerate(s.kerb):
        z, x = rng.uniform(3, 12), kerb + (-1.15 if side else 1.15)
        while s.parking[side] and z < 80:
            if s.cross and s.cross - 9 < z < s.cross + 8:
                z = s.cross + 9
            if rng.random() < 0.6:
                kind = (
                    'truck'
                    if rng.random() < 0.03
                    else rng.choice(('sedan', 'hatch', 'van', 'sedan'))
                )
                z += vehicle(s, kind, x, z, 0.0 if side else math.pi) + rng.uniform(0.6, 1.5)
            elif rng.random() < 0.2:
                cycle(s, x, z, None, motor=True, ridden=False)
                z += 2
            else:
                z += rng.uniform(2, 9)


def _crossing(s: Scene) -> None:
    """Adds crossing traffic, and people on the zebra crossing."""
    rng = s.rng
    if not s.cross:
        return
    for lane, yaw in ((2.0, math.pi / 2), (5.5, -math.pi / 2)):
        x = rng.uniform(-25, 0)
        while x < 25:
            if rng.random() < 0.45:
                kind = rng.choices((_kind(s), 'tram'), (0.95, 0.05))[0]
                length = sum(size[2] for _, _, size in VEHICLES[kind][0])
                vehicle(s, kind, x + length / 2, s.cross + lane, yaw)
                x += length
            elif rng.random() < 0.2:
                cycle(s, x, s.cross + lane, None, motor=rng.random() < 0.4)
            x += rng.uniform(4, 16)
    for _ in range(rng.choice((0, 0, 1, 3, 5))):
        person(s, rng.uniform(*s.kerb), s.cross - rng.uniform(1, 5))


def cycle(
    s: Scene, x: float, z: float, yaw: float | None, *, motor: bool, ridden: bool = True
) -> None:
    """Adds a bicycle or motorcycle that goes ahead (yaw 0), back (pi) or to the side (None)."""
    rng = s.rng
    if yaw is None:
        model, rider = shapes.MOTORCYCLE if motor else shapes.BICYCLE, shapes.RIDER
        stretch = rng.choice((-1, 1)) * rng.uniform(0.75, 1.0)
    else:
        model, rider = shapes.MOTORCYCLE_BACK if motor else shapes.BICYCLE_BACK, shapes.RIDER_BACK
        stretch = 1.0
    paint, skin, hair = s.pick('car', 0.4), s.pick('skin'), s.pick('cloth', 0.5)
    plain = {'b': paint, 'd': (60, 60, 58), 'h': (120, 120, 118), **LAMPS}
    if yaw == math.pi:
        plain['r'] = LAMPS['w']
    dress = {
        'l': s.pick('cloth'),
        't': s.pick('cloth', 0.5),
        'h': hair if yaw == 0 else skin,
        'k': hair,
    }
    dress['a'] = lighter(dress['t'], 0.85)
    at, label = (x, 0.0, z), Id.MOTORCYCLE if motor else Id.BICYCLE

    def draw() -> None:
        s.draw(model, at, (stretch, 1, 1), {k: s.tone(c, z) for k, c in plain.items()}, label)
        if ridden:
            s.draw(
                rider, at, (stretch, 1, 1), {k: s.tone(c, z) for k, c in dress.items()}, Id.RIDER
            )

    reach = 0.9 if yaw is None else 0.3
    s.add(z, draw, (x - reach, x + reach, z - 0.2, z + 0.2), 0.0, 1.5 if ridden else 0.9)


def person(s: Scene, x: float, z: float) -> None:
    """Adds an adult or a child."""
    rng = s.rng
    height = rng.uniform(1.55, 1.92) if rng.random() < 0.88 else rng.uniform(1.0, 1.4)
    dress = {
        'l': s.pick('cloth'),
        't': s.pick('cloth', 0.5),
        'h': s.pick('skin'),
        'k': s.pick('hair'),
    }
    dress['a'] = lighter(dress['t'], 0.85)
    gain = rng.uniform(0.75, 1.1)
    colours = {k: s.tone(c, z, gain) for k, c in dress.items()}
    scale = (height * rng.choice((-1, 1)) * rng.uniform(0.8, 1.1), height, 1.0)
    draw = partial(s.draw, rng.choice(shapes.PEOPLE), (x, 0.0, z), scale, colours, Id.PERSON)
    s.add(z, draw, (x - 0.25, x + 0.25, z - 0.15, z + 0.15), 0.0, height)


def _walkers(s: Scene) -> None:
    rng = s.rng
    for _ in range(int(rng.expovariate(1 / 5) * (0.3 + s.urban))):
        side = rng.randrange(2)
        out = 1 if side else -1
        x = s.kerb[side] + out * (s.verge[side] + rng.uniform(0.3, s.walk[side]))
        z = 5 + 60 * rng.random() ** 1.6
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            person(s, x + rng.uniform(-0.6, 0.6), z + rng.uniform(-0.6, 0.6))
        if rng.random() < 0.35:
            for i in range(rng.choice((1, 3, 5))):
                cycle(
                    s, x + out * 0.4, z + 1 + 0.6 * i, None, motor=rng.random() < 0.15, ridden=False
                )
    if rng.random() < 0.4:
        right = rng.random() < 0.7
        x = s.kerb[1] - 0.8 - 2.2 * s.parking[1] if right else s.kerb[0] + 0.8 + 2.2 * s.parking[0]
        cycle(s, x, 7 + 40 * rng.random(), 0.0 if right else math.pi, motor=False)


def post(
    s: Scene, x: float, z: float, height: float, thick: float, colour: Colour, arm: float = 0.0
) -> None:
    """Adds a pole, at least a pixel wide, with a horizontal ``arm`` of this length in metres."""

    def draw() -> None:
        foot, top = s.project(x, 0.0, z), s.project(x, height, z)
        half = max(0.0, (thick * s.focal / z - 1) / 2)
        column = np.array(
            [foot - (half, 0), foot + (half, 0), top + (half * 0.7, 0), top - (half * 0.7, 0)]
        )
        s.fill([column], s.tone(colour, z), Id.POLE)
        if arm:
            y = height + np.array([-0.06, 0.1, 0.16, 0.0])
            s.fill([s.project(x + arm * np.array([0, 1, 1, 0]), y, z)], s.tone(colour, z), Id.POLE)

    s.add(z, draw, (x - thick / 2, x + thick / 2, z, z + thick), 0.0, height)


def _sign(s: Scene, x: float, y: float, z: float, size: float, model: shapes.Model) -> None:
    blue = (165, 85, 30) if s.rng.random() < 0.7 else (75, 110, 30)
    gain = s.rng.uniform(0.7, 1.1)
    colours = {k: s.tone(c, z, gain) for k, c in {**LAMPS, 'b': blue}.items()}
    s.add(z - 0.1, partial(s.draw, model, (x, y, z - 0.1), (size, size, 1.0), colours, Id.SIGN))


def _light(s: Scene, x: float, y: float, z: float) -> None:
    lit = s.rng.choice('rog')
    lamps = {'r': (40, 40, 245), 'o': (40, 190, 250), 'g': (150, 240, 60)}
    colours = {k: s.tone(c if k == lit else lighter(c, 0.25), z) for k, c in lamps.items()}
    colours['k'] = s.tone((30, 32, 32) if s.rng.random() < 0.8 else (40, 130, 160), z)
    s.add(z - 0.1, partial(s.draw, shapes.LIGHT, (x, y, z - 0.1), (1, 0.95, 1), colours, Id.LIGHT))


def _furniture(s: Scene) -> None:
    rng = s.rng
    for side, kerb in enumerate(s.kerb):
        out = 1 if side else -1
        x, grey = kerb + out * 0.45, (rng.uniform(60, 150),) * 3
        if rng.random() < 0.8:
            height, thick, arm = (
                rng.uniform(5, 9),
                rng.uniform(0.12, 0.22),
                -out * rng.uniform(0, 2.2),
            )
            for z in np.arange(rng.uniform(5, 25), 110, rng.uniform(16, 32)):
                post(s, x, float(z), height, thick, grey, arm)
        for _ in range(rng.randrange(4)):
            z, size, y = (
                5 + 70 * rng.random() ** 1.3,
                rng.uniform(0.55, 0.85),
                rng.uniform(1.9, 2.6),
            )
            post(s, x, z, y + size, 0.07, (125, 125, 122))
            _sign(s, x, y, z, size, rng.choice(shapes.SIGNS))
            if rng.random() < 0.3:
                _sign(s, x, y - size * 0.8, z, size * 0.75, rng.choice(shapes.SIGNS))
        if rng.random() < 0.15:
            for z in np.arange(rng.uniform(4, 10), 40, 2.0):
                post(s, x, float(z), 0.9, 0.12, grey)
        if rng.random() < 0.3:
            z, dark = rng.uniform(6, 30), s.pick('cloth')
            _bin(s, x + out * 0.5, z, dark)
        _signals(s, x, out)


def _bin(s: Scene, x: float, z: float, colour: Colour) -> None:
    box = s.project(x + np.array([-0.3, 0.3, 0.3, -0.3]), np.array([0, 0, 1.05, 1.05]), z)
    draw = partial(s.fill, [box], s.tone(colour, z, 0.7), Id.STATIC)
    s.add(z, draw, (x - 0.3, x + 0.3, z, z + 0.5), 0.0, 1.0)


def _signals(s: Scene, x: float, out: int) -> None:
    """Adds traffic lights at the crossing, beside or above the road, or a board above the road."""
    rng = s.rng
    if s.cross and rng.random() < 0.75:
        for z in (s.cross - 1.5, s.cross + 9):
            over = rng.random() < 0.3
            arm = -out * rng.uniform(3, 5)
            post(s, x, z, 5.9 if over else 3.3, 0.15, (90, 92, 92), arm if over else 0.0)
            _light(s, x, 2.3, z)
            if over:
                _light(s, x + arm, 5.1, z)
    elif rng.random() < 0.1:
        z = rng.uniform(10, 50)
        arm = -out * 3.0
        post(s, x, z, 5.8, 0.2, (110, 112, 112), arm)
        _sign(s, x + arm * 0.8, 5.0, z, rng.uniform(1, 1.6), rng.choice(shapes.BOARDS))


def populate(s: Scene) -> None:
    """Adds all vehicles, people and street furniture."""
    _lanes(s)
    _parked(s)
    _crossing(s)
    _walkers(s)
    _furniture(s)
