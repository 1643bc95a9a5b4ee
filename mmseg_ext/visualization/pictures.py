"""Pictures of predictions and of the maps that a model's ``explain`` returns.

Pictures are uint8 arrays (H, W, 3) in RGB. A palette holds one RGB colour, 0 to 255, per class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError

Palette = Sequence[Sequence[int]]
Legend = Sequence[tuple[str, Sequence[int]]]

WEIGHT_COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))
HEAT = cv2.COLORMAP_INFERNO
PANEL_WIDTHS = (400, 960)  # pixels: captions are readable, and a strip of large images is small
FONT, FONT_SIZE, LINE, MARGIN = cv2.FONT_HERSHEY_SIMPLEX, 0.45, 20, 6


@dataclass(frozen=True)
class Panel:
    """A picture with a caption.

    ``legend`` holds pairs (word, colour), and ``classes`` the classes in the picture.
    ``over_image`` is False for tables, whose pixels are not those of the image.
    """

    caption: str
    picture: np.ndarray
    legend: Legend = ()
    classes: frozenset[int] = frozenset()
    over_image: bool = True


def draw_maps(maps: Mapping[str, Tensor], image: np.ndarray, palette: Palette) -> list[Panel]:
    """One panel, of the image's size, for each named map of one image.

    The maps are those of a model's ``explain``. Each covers the whole input, at any resolution.
    Panels have the order of the maps. The first line of this table that applies to a map decides
    how it is drawn:

    =========================  ====================================================================
    map                        drawn as
    =========================  ====================================================================
    named ``prediction*``      logits, C = number of classes (1: the class where positive), in the
                               classes' colours
    named ``image*``           C = 3, red, green and blue in [0, 1], as they are
    named ``*weight``          C non-negative weights that sum to 1 at each pixel: the first is red,
                               then green, blue, yellow, magenta, cyan, mixed. The names of the
                               dict's first C maps ``prediction_<name>`` explain the colours
    integer                    C = 1, class indices, in the classes' colours (outside: black)
    W = 1 and C > 1            a table, rows from top to bottom and channels from left to right
    C = 1                      a heat map over the grey image
    any other                  the norm over the channels as such a heat map
    =========================  ====================================================================

    The colours of heat maps and tables span [0, 1] if all values lie in it, and otherwise the range
    of the values; booleans count as 0 and 1. HMSA, for example, returns ``attention_0.5`` (one
    channel in [0, 1]), ``prediction_0.5``, ``prediction_1.0`` and ``scale_weight`` (two channels).

    Args:
        maps: Tensors (C, H, W) by name, of any dtype and device.
        image: Image that all maps cover.
        palette: Colours of the classes.

    Raises:
        UserError: The channels of a map do not fit its name.
    """
    names = [name.split('_', 1)[1] for name in maps if name.startswith('prediction_')]
    return [_draw_map(name, values, image, palette, names) for name, values in maps.items()]


def _draw_map(
    name: str, values: Tensor, image: np.ndarray, palette: Palette, names: Sequence[str]
) -> Panel:
    if values.ndim != 3:
        raise UserError(f'map {name!r} has the shape {tuple(values.shape)}, expected (C, H, W)')
    values = values.detach().cpu()
    channels, size = len(values), image.shape[:2]
    if name.startswith('prediction'):
        if channels not in (1, len(palette)):
            raise UserError(
                f'map {name!r} has {channels} channels, expected one for each of the '
                f'{len(palette)} classes: give it another name if it holds no logits'
            )
        logits = F.interpolate(values[None].float(), size, mode='bilinear', align_corners=False)
        return label_panel(name, image, _labels_of(logits[0]), palette)
    if name.startswith('image'):
        if channels != 3:
            raise UserError(f'map {name!r} has {channels} channels, expected red, green and blue')
        colors = (values.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
        return Panel(name, _resize(colors.numpy(), size, cv2.INTER_LINEAR))
    if name.endswith('weight'):
        return _draw_weights(name, values, size, names)
    if not values.is_floating_point() and values.dtype != torch.bool:
        return label_panel(name, image, values[0].numpy(), palette)
    values = values.float()
    if channels > 1 and values.shape[2] == 1:
        table = _draw_heat(f'{name} (rows x {channels} channels)', values[:, :, 0].T, size)
        return replace(table, over_image=False)
    if channels > 1:
        name, values = f'{name} (norm of {channels} channels)', values.norm(dim=0, keepdim=True)
    return _draw_heat(name, values[0], size, over=image)


def _labels_of(logits: Tensor) -> np.ndarray:
    """Class indices (H, W) of logits (C, H, W); with one channel, class 1 where positive."""
    return (logits.argmax(0) if len(logits) > 1 else (logits[0] > 0).long()).numpy()


def _draw_weights(name: str, values: Tensor, size: tuple[int, int], names: Sequence[str]) -> Panel:
    channels = len(values)
    if channels > len(WEIGHT_COLORS):
        raise UserError(
            f'map {name!r} has {channels} channels, expected at most {len(WEIGHT_COLORS)} weights'
        )
    if len(names) < channels:
        names = [str(i + 1) for i in range(channels)]
    colors = torch.tensor(WEIGHT_COLORS[:channels], dtype=torch.float)
    mixed = torch.einsum('chw,cr->hwr', values.float(), colors).clamp(0, 255)
    picture = _resize(mixed.round().byte().numpy(), size, cv2.INTER_LINEAR)
    return Panel(name, picture, list(zip(names, WEIGHT_COLORS[:channels], strict=False)))


def _draw_heat(
    name: str, values: Tensor, size: tuple[int, int], over: np.ndarray | None = None
) -> Panel:
    """Heat map of values (h, w); its legend shows the ends and the middle of the range."""
    low, high = values.min().item(), values.max().item()
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    levels = (values - low) * (255 / max(high - low, 1e-12))
    interpolation = cv2.INTER_NEAREST if over is None else cv2.INTER_LINEAR
    picture = _heat_colors(_resize(levels.round().byte().numpy(), size, interpolation))
    if over is not None:
        grey = cv2.cvtColor(cv2.cvtColor(over, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        picture = cv2.addWeighted(picture, 0.7, grey, 0.3, 0)
    ticks = _heat_colors(np.array([[0, 128, 255]], np.uint8))[0].tolist()
    texts = [f'{value:.3g}' for value in (low, (low + high) / 2, high)]
    return Panel(name, picture, list(zip(texts, ticks, strict=True)))


def _heat_colors(levels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.applyColorMap(levels, HEAT), cv2.COLOR_BGR2RGB)


def _resize(picture: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    return cv2.resize(picture, size[::-1], interpolation=interpolation)


def color_labels(label: np.ndarray, palette: Palette) -> np.ndarray:
    """Colours (H, W, 3) of class indices (H, W); indices outside of [0, K) are black."""
    table = np.zeros((len(palette) + 1, 3), np.uint8)
    table[:-1] = palette
    inside = (label >= 0) & (label < len(palette))
    return table[np.where(inside, label, len(palette))]


def draw_overlay(image: np.ndarray, label: np.ndarray, palette: Palette) -> np.ndarray:
    """The image, mixed with equal weight with the colours of class indices (h, w) of any size."""
    colors = _resize(color_labels(label, palette), image.shape[:2], cv2.INTER_NEAREST)
    return cv2.addWeighted(image, 0.5, colors, 0.5, 0)


def label_panel(caption: str, image: np.ndarray, label: np.ndarray, palette: Palette) -> Panel:
    """A panel of ``draw_overlay`` with its classes for the legend."""
    classes = frozenset(i for i in np.unique(label).tolist() if 0 <= i < len(palette))
    return Panel(caption, draw_overlay(image, label, palette), classes=classes)


def draw_strip(
    panels: Sequence[Panel],
    legend: Legend = (),
    columns: int = 3,
) -> np.ndarray:
    """Picture of panels in rows of ``columns``, with captions above and a common legend below."""
    height, width = panels[0].picture.shape[:2]
    panel_width = int(np.clip(width, *PANEL_WIDTHS))
    size = (max(1, round(height * panel_width / width)), panel_width)
    columns = min(columns, len(panels))
    rows = []
    for start in range(0, len(panels), columns):
        row = [_draw_panel(panel, size) for panel in panels[start : start + columns]]
        row += [np.full_like(row[0], 255)] * (columns - len(row))
        rows.append(np.hstack(row))
    if legend:
        rows.append(_draw_legend(legend, rows[0].shape[1]))
    return np.vstack(rows)


def _draw_panel(panel: Panel, size: tuple[int, int]) -> np.ndarray:
    """Caption and legend in a line, the picture below, and a white margin right and below."""
    height, width = size
    canvas = np.full((LINE + height + MARGIN, width + MARGIN, 3), 255, np.uint8)
    room = width - MARGIN - sum(_entry_width(word) for word, _ in panel.legend)
    _write(canvas, panel.caption, (MARGIN, LINE - MARGIN), room)
    x = MARGIN + room
    for word, color in panel.legend:
        _draw_entry(canvas, word, color, (x, 0))
        x += _entry_width(word)
    interpolation = cv2.INTER_AREA if width < panel.picture.shape[1] else cv2.INTER_NEAREST
    canvas[LINE : LINE + height, :width] = _resize(panel.picture, size, interpolation)
    return canvas


def _draw_legend(legend: Legend, width: int) -> np.ndarray:
    """Legend with colours and words in columns of equal width."""
    cell = max(_entry_width(word) for word, _ in legend) + MARGIN
    columns = max(1, (width - MARGIN) // cell)
    canvas = np.full((LINE * ceil(len(legend) / columns) + MARGIN, width, 3), 255, np.uint8)
    for i, (word, color) in enumerate(legend):
        _draw_entry(canvas, word, color, (MARGIN + i % columns * cell, i // columns * LINE))
    return canvas


def _text_width(text: str) -> int:
    return cv2.getTextSize(text, FONT, FONT_SIZE, 1)[0][0]


def _entry_width(word: str) -> int:
    return LINE + _text_width(word) + MARGIN


def _draw_entry(
    canvas: np.ndarray, word: str, color: Sequence[int], corner: tuple[int, int]
) -> None:
    x, y = corner
    canvas[y + 4 : y + LINE - 4, x : x + LINE - 8] = 0
    canvas[y + 5 : y + LINE - 5, x + 1 : x + LINE - 9] = color
    _write(canvas, word, (x + LINE - 4, y + LINE - MARGIN), _text_width(word))


def _write(canvas: np.ndarray, text: str, origin: tuple[int, int], room: int) -> None:
    """Writes black text from its lower left ``origin``; it shrinks to ``room`` pixels of width."""
    text = text.encode(errors='replace').decode()  # OpenCV ends the process for other names
    scale = FONT_SIZE * min(1, room / max(1, _text_width(text)))
    cv2.putText(canvas, text, origin, FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)


def class_legend(panels: Sequence[Panel], classes: Sequence[str], palette: Palette) -> Legend:
    """The classes that occur in any of the panels, for ``draw_strip``."""
    indices = frozenset[int]().union(*(panel.classes for panel in panels))
    return [(classes[i], palette[i]) for i in sorted(indices)]


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes an RGB picture or class indices (H, W) to a file; its suffix chooses the format.

    Raises:
        UserError: The file cannot be written.
    """
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    # OpenCV ends the process where it writes to a name that is not UTF-8.
    content = cv2.imencode(path.suffix, picture)[1].tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UserError(
            f'{path} cannot be written ({error.strerror or error}): make room or name another '
            'folder'
        ) from error
