"""Shapes of objects on a street: polygons of vehicles, cycles, people, lights and signs.

Each line of text, ``CODE KIND NUMBERS``, describes a shape; later lines cover earlier lines.

``CODE`` is a letter that the scene maps to a colour: b body, s side of the body, t top of the body,
m stripe, g glass, k black, d dark, h metal or skin, r red, w white, o orange, p plate, l legs,
a arms. Code ``.`` is drawn in the label alone.

``KIND NUMBERS`` is one of the following; ``|`` before a kind (``|rect``) adds the mirror image.

==========================  ==============================================
``rect x0 y0 x1 y1``        rectangle
``bar x0 y0 x1 y1 thick``   line of a thickness
``disc x y rx ry``          ellipse
``hoop x radius thick``     tyre: a ring in the image, a disc in the label
``poly x y x y ...``        polygon
==========================  ==============================================
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

Polygon = Sequence[tuple[float, float]]


class Model(NamedTuple):
    """Polygons in space."""

    points: np.ndarray  # (P, 3): s to the right, y up, l ahead
    spans: list[tuple[int, int, str, bool]]  # start, stop, colour code, whether it is labelled
    starts: np.ndarray  # (number of polygons,): the starts of the spans
    solid: bool  # polygons run counter-clockwise seen from outside; those facing away are hidden


def _bar(x0: float, y0: float, x1: float, y1: float, thick: float) -> Polygon:
    k = thick / 2 / math.hypot(x1 - x0, y1 - y0)
    dx, dy = (y0 - y1) * k, (x1 - x0) * k
    return [(x0 - dx, y0 - dy), (x1 - dx, y1 - dy), (x1 + dx, y1 + dy), (x0 + dx, y0 + dy)]


def _disc(x: float, y: float, rx: float, ry: float) -> Polygon:
    turns = [2 * math.pi * i / 12 for i in range(12)]
    return [(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns]


def _polygons(kind: str, v: list[float]) -> list[Polygon]:
    if kind == 'rect':
        return [[(v[0], v[1]), (v[2], v[1]), (v[2], v[3]), (v[0], v[3])]]
    if kind == 'bar':
        return [_bar(*v)]
    if kind == 'disc':
        return [_disc(*v)]
    if kind == 'hoop':
        ring = _disc(v[0], v[1], v[1], v[1])
        return [_bar(*p, *q, v[2]) for p, q in zip(ring, [*ring[1:], ring[0]], strict=True)]
    return [list(zip(v[::2], v[1::2], strict=True))]


def parse(text: str) -> list[tuple[str, Polygon]]:
    """Pairs (colour code, polygon) of lines of shapes; the module explains the lines."""
    shapes = []
    for code, kind, *numbers in map(str.split, filter(str.strip, text.splitlines())):
        if kind == 'hoop':
            x, radius = float(numbers[0]), float(numbers[1])
            shapes.append(('.', _disc(x, radius, radius, radius)))
        for polygon in _polygons(kind.lstrip('|'), [float(n) for n in numbers]):
            shapes.append((code, polygon))
            if kind[0] == '|':
                shapes.append((code, [(-x, y) for x, y in polygon][::-1]))
    return shapes


def _join(
    shapes: Iterable[tuple[str, Sequence[tuple[float, float, float]]]], faces: int = 0
) -> Model:
    """A flat model, or a solid model if its first ``faces`` polygons are the sides of a solid."""
    points: list[tuple[float, float, float]] = []
    spans = []
    for i, (code, polygon) in enumerate(shapes):
        labelled = not faces or i < faces or code in 'kd'  # tyres and bumpers extend the outline
        spans.append((len(points), len(points) + len(polygon), code, labelled))
        points.extend(polygon)
    return Model(np.array(points), spans, np.array([span[0] for span in spans]), faces > 0)


def sprite(text: str) -> Model:
    """A flat model of shapes with the coordinates (s, y)."""
    return _join((code, [(x, y, 0.0) for x, y in polygon]) for code, polygon in parse(text))


def body(profile: str, edges: str, side: str, rear: str, front: str) -> Model:
    """A vehicle of length, width and height 1: its side view, extruded.

    Args:
        profile: Outline ``l y l y ...`` from the lowest point of the rear over the roof to the
            lowest point of the front, l in [-.5, .5].
        edges: Colour code of each edge of the profile.
        side: Shapes in (l, y) on both sides.
        rear: Shapes in (s, y) on the rear, s in [-.5, .5].
        front: Shapes in (s, y) on the front.
    """
    outline = _polygons('poly', [float(n) for n in profile.split()])[0]
    ends = zip(outline, [*outline[1:], outline[0]], edges, strict=True)
    faces = [
        (code, [(-0.5, y0, l0), (0.5, y0, l0), (0.5, y1, l1), (-0.5, y1, l1)])
        for (l0, y0), (l1, y1), code in ends
    ]
    for code, polygon in [('s', outline[::-1]), *parse(side)]:
        faces.append((code, [(0.5, y, lng) for lng, y in polygon]))
        faces.append((code, [(-0.5, y, lng) for lng, y in polygon[::-1]]))
    faces += [(code, [(x, y, -0.5) for x, y in polygon]) for code, polygon in parse(rear)]
    faces += [(code, [(x, y, 0.5) for x, y in polygon[::-1]]) for code, polygon in parse(front)]
    return _join(faces, faces=len(edges) + 2)


def _wheels(ratio: float, radius: float, *centres: float) -> str:
    """Wheels on a side at ``centres``; ``ratio`` is height / length, ``radius`` is in heights."""
    return '\n'.join(
        f'{code} disc {x} {radius} {radius * ratio * k} {radius * k}'
        for x in centres
        for code, k in (('k', 1), ('h', 0.6))
    )


_CAR_REAR = """
    d rect -.48 .20 .48 .34
    k |rect -.46 0 -.33 .22
    r |rect -.48 .50 -.33 .62
    p rect -.15 .38 .15 .45"""
_CAR_FRONT = """
    d rect -.46 .18 .46 .30
    k |rect -.46 0 -.33 .20
    k rect -.22 .34 .22 .45
    p rect -.15 .26 .15 .33
    w |rect -.48 .38 -.30 .50"""
_SILL = """
    d rect -.49 .19 .49 .26
    d rect -.095 .26 -.087 .64
"""
SEDAN = body(
    '-.5 .2 -.48 .64 -.37 .68 -.24 .97 .08 1 .26 .66 .47 .54 .5 .2',
    'bbgtgtbk',
    'g poly -.31 .66 -.1 .65 -.1 .92 -.21 .90\ng poly -.08 .65 .2 .65 .07 .93 -.08 .92'
    + _SILL
    + _wheels(0.31, 0.22, -0.3, 0.32),
    _CAR_REAR,
    _CAR_FRONT,
)
HATCH = body(
    '-.5 .2 -.48 .62 -.42 .96 .08 1 .26 .66 .47 .54 .5 .2',
    'bgtgtbk',
    'g poly -.42 .66 -.1 .65 -.1 .92 -.37 .90\ng poly -.08 .65 .2 .65 .07 .93 -.08 .92'
    + _SILL
    + _wheels(0.38, 0.22, -0.3, 0.32),
    _CAR_REAR,
    _CAR_FRONT,
)
_LONG = '-.5 .1 -.5 .5 -.495 .98 .495 1 .5 .42 .5 .1'
_WINDOWS = '\n'.join(f'g rect {x / 100} .48 {(x + 10.5) / 100} .83' for x in range(-46, 40, 12))
_LOW = """
    k |rect -.46 0 -.34 .12
    d rect -.45 .10 .45 .16
"""
_BUS_REAR = """
    g rect -.42 .56 .42 .86
    d rect -.36 .22 .36 .42
    o rect -.18 .88 .18 .96
    r |rect -.48 .26 -.40 .44
    p rect -.1 .17 .1 .21"""
_BUS_FRONT = """
    g rect -.47 .38 .47 .84
    k rect -.32 .87 .32 .97
    o rect -.26 .89 .26 .95
    w |rect -.46 .20 -.32 .28
    d rect -.01 .38 .01 .84
    p rect -.1 .17 .1 .21"""
BUS = body(
    _LONG,
    'bbtbbk',
    f"""m rect -.5 .22 .5 .36
    {_WINDOWS}
    d rect .36 .12 .46 .86
    g rect .37 .20 .45 .82
    d rect -.06 .12 .04 .86
    g rect -.05 .20 .03 .82
    {_wheels(0.26, 0.16, -0.3, 0.26)}""",
    _LOW + _BUS_REAR,
    _LOW + _BUS_FRONT,
)
TRAM = body(
    '-.5 .08 -.5 .4 -.47 .96 .47 .96 .5 .4 .5 .08',
    'bbtbbk',
    f"""m rect -.5 .10 .5 .30
    {_WINDOWS}
    d rect -.24 .10 -.12 .88
    g rect -.23 .18 -.13 .84
    d rect .12 .10 .24 .88
    g rect .13 .18 .23 .84
    k rect -.3 .96 .3 1.02""",
    'm rect -.5 .1 .5 .32' + _BUS_REAR.replace('.56', '.42'),
    'm rect -.5 .1 .5 .32' + _BUS_FRONT,
)
BOX = body(
    '-.5 .28 -.5 1 .5 1 .5 .28',
    'btbk',
    'm rect -.3 .5 .3 .8\n' + _wheels(0.53, 0.15, -0.32, -0.1) + '\nd rect 0 .12 .4 .26',
    """k |rect -.46 0 -.3 .22
    d rect -.48 .16 .48 .28
    r |rect -.47 .17 -.35 .24
    p rect -.1 .17 .1 .23
    d rect -.01 .30 .01 .98""",
    'k rect -.4 .1 .4 .3',
)
CAB = body(
    '-.5 .2 -.5 1 .3 1 .45 .5 .5 .2',
    'dtgbk',
    'g poly -.05 .56 .38 .56 .26 .88 -.05 .88\n' + _wheels(1.3, 0.19, 0.1),
    'd rect -.5 .2 .5 1',
    """k |rect -.46 0 -.32 .2
    k rect -.40 .30 .40 .42
    w |rect -.47 .24 -.30 .32""",
)


def _person(swing: float, arm: float) -> Model:
    """A pedestrian of height 1."""
    return sprite(f"""
        k rect {-swing - 0.03} 0 {0.05 - swing} .03
        k rect {swing - 0.03} 0 {swing + 0.05} .03
        l bar {-swing} .02 -.035 .5 .085
        l bar {swing} .02 .035 .5 .085
        t poly -.1 .46 .1 .46 .125 .8 .06 .84 -.06 .84 -.125 .8
        a bar -.12 .8 {-0.13 - arm} .47 .055
        a bar .12 .8 {0.13 + arm} .47 .055
        h disc 0 .91 .05 .07
        k disc 0 .95 .055 .045""")


PEOPLE = [_person(0.04, 0.0), _person(0.1, 0.05), _person(0.15, 0.1), _person(0.07, -0.05)]
BICYCLE = sprite("""
    k hoop -.52 .34 .05
    k hoop .52 .34 .05
    b bar -.52 .34 -.15 .80 .05
    b bar -.52 .34 0 .32 .05
    b bar 0 .32 -.18 .85 .05
    b bar 0 .32 .40 .85 .05
    b bar -.15 .75 .40 .80 .05
    b bar .52 .34 .38 1 .05
    k rect -.30 .86 -.05 .92
    k bar .38 1 .28 1.05 .06""")
MOTORCYCLE = sprite("""
    k hoop -.65 .30 .13
    k hoop .70 .30 .12
    d disc -.65 .30 .13 .13
    d disc .70 .30 .13 .13
    d poly -.5 .3 .35 .25 .45 .6 -.4 .6
    h bar -.2 .3 -.9 .34 .1
    b poly -.95 .8 -.2 .62 .2 .6 .5 .85 .3 .98 -.1 .85 -.5 .86
    k poly -.9 .86 -.1 .8 -.1 .88 -.6 .9
    d bar .7 .3 .4 1.05 .08
    b poly .4 .75 .62 .8 .5 1.15 .35 1
    r rect -.98 .74 -.90 .82""")
RIDER = sprite("""
    l bar -.12 .92 .18 .72 .16
    l bar .18 .72 .05 .28 .12
    k rect 0 .22 .20 .30
    t poly -.25 .86 0 .88 .24 1.36 .08 1.46 -.04 1.4
    a bar .14 1.34 .36 1.06 .1
    h disc .2 1.56 .1 .12
    k disc .18 1.62 .12 .09""")
BICYCLE_BACK = sprite("""
    k rect -.03 0 .03 .68
    r rect -.04 .62 .04 .72
    b rect -.03 .60 .03 .90
    b rect -.28 .98 .28 1.03
    k rect -.10 .86 .10 .92""")
MOTORCYCLE_BACK = sprite("""
    k rect -.08 0 .08 .60
    b poly -.2 .5 .2 .5 .24 .9 -.24 .9
    d rect -.38 .98 .38 1.04
    r rect -.10 .72 .10 .80
    p rect -.10 .50 .10 .62""")
RIDER_BACK = sprite("""
    l bar -.1 .95 -.18 .5 .14
    l bar .1 .95 .18 .4 .14
    t poly -.17 .9 .17 .9 .22 1.38 .1 1.48 -.1 1.48 -.22 1.38
    a bar -.22 1.38 -.27 1.04 .09
    a bar .22 1.38 .27 1.04 .09
    h disc 0 1.57 .09 .12
    k disc 0 1.62 .11 .10""")
LIGHT = sprite("""
    k rect -.17 0 .17 1
    r disc 0 .82 .11 .11
    o disc 0 .50 .11 .11
    g disc 0 .18 .11 .11""")
SIGNS = [
    sprite(text)
    for text in (
        'r disc 0 .5 .5 .5\nw disc 0 .5 .37 .37\nk rect -.18 .36 -.04 .64\nk rect .04 .36 .18 .64',
        'r poly -.5 .05 .5 .05 0 .95\nw poly -.3 .17 .3 .17 0 .72',
        'r poly -.5 .95 .5 .95 0 .05\nw poly -.3 .83 .3 .83 0 .28',
        'b disc 0 .5 .5 .5\nw bar 0 .2 0 .8 .14\nw poly -.22 .56 .22 .56 0 .86',
        'b rect -.45 .05 .45 .95\nw rect -.15 .2 -.03 .8\nw disc .05 .62 .17 .17',
        'r disc 0 .5 .5 .5\nw rect -.34 .42 .34 .58',
        'w poly 0 0 .5 .5 0 1 -.5 .5\no poly 0 .12 .38 .5 0 .88 -.38 .5',
        'r poly -.2 0 .2 0 .5 .3 .5 .7 .2 1 -.2 1 -.5 .7 -.5 .3\nw rect -.3 .42 .3 .58',
    )
]
BOARDS = [
    sprite(
        'w rect -1.5 0 1.5 1\nb rect -1.4 .06 1.4 .94\nw rect -1.2 .55 .5 .75\nw rect -1.2 .2 1 .4'
    ),
    sprite('k rect -1.2 0 1.2 .5\no rect -1.16 .04 1.16 .46\nk rect -.9 .18 .7 .32'),
]
