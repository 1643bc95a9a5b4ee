"""Report of a table's models: one HTML page that needs no network; needs the extra ``report``."""

import base64
import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment
from PIL import Image
from plotly.offline import get_plotlyjs

from mmseg_ext.benchmark.rows import Column, Row, cells, columns_of, headings_of, notes
from mmseg_ext.checkpoints.write import write_atomically
from mmseg_ext.evaluation.saved_predictions import LIST

WORST, OTHERS = 8, 4  # pictures: the worst images, and images from the next worst to the best
WIDTH = 640  # largest width of pictures in pixels
POINTS = 400  # number of points of a training curve
CURVES = ('loss', 'main_loss', 'val_loss', 'mIoU')
WRONG = [(0, 0, 0, 0), (255, 45, 85, 255), (0, 0, 0, 150)]  # RGBA of right, wrong, unlabelled


def write_report(rows: Sequence[Row], path: Path) -> None:
    """Writes the page: table, IoU of classes, accuracy over time, curves, confusions, images."""
    template = (files('mmseg_ext.benchmark') / 'report.html.j2').read_text(encoding='utf-8')
    page = Environment(autoescape=True).from_string(template)
    text = page.render(plotly=get_plotlyjs(), report=report_data(rows))
    write_atomically(text.encode(), path)


def report_data(rows: Sequence[Row]) -> dict[str, Any]:
    """Content of the page as JSON values; models of the same data set form a group."""
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        if row.result:
            groups.setdefault((row.data_set, *row.result.classes), []).append(i)
    columns = columns_of(rows)
    return dict(
        headings=headings_of(columns),
        notes=notes(rows),
        models=[_model(row, columns) for row in rows],
        groups=[_group([(i, rows[i]) for i in members]) for members in groups.values()],
    )


def _model(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    result = row.result
    return dict(
        name=row.name,
        data_set=row.data_set,
        cells=cells(row, columns),
        values=[row.name, row.data_set, *(value(row) for _, value, _ in columns)],
        source=row.source,
        problem=row.problem,
        failed=row.failed,
        curves=read_curves(Path(row.checkpoint).parent) if row.checkpoint else {},
        iou=result.iou if result else None,
        confusion=_shares(result.confusion) if result else None,
    )


def _shares(confusion: list[list[int]]) -> list[list[float | None]]:
    """Confusion in per cent of each label's pixels; rows of labels without pixels hold None."""
    return [
        [round(100 * count / sum(row), 2) if sum(row) else None for count in row]
        for row in confusion
    ]


def _group(members: list[tuple[int, Row]]) -> dict[str, Any]:
    first = members[0][1]
    assert first.result is not None
    return dict(
        data_set=first.data_set,
        images=first.result.images,
        classes=first.result.classes,
        palette=first.result.palette,
        models=[i for i, _ in members],
        pictures=_pictures(members, first.result.palette),
    )


def read_curves(work_dir: Path) -> dict[str, list[list[float]]]:
    """Iterations and values of losses and mIoU from ``curves.json`` or the host's ``scalars.json``.

    Long curves are averaged to at most ``POINTS`` points.
    """
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    if (work_dir / 'curves.json').is_file():
        records = json.loads((work_dir / 'curves.json').read_text())
    elif logs:
        records = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    else:
        return {}
    curves = {}
    for name in CURVES:
        points = [(r.get('iter', r.get('step')), r[name]) for r in records if name in r]
        if points:
            groups = np.array_split(np.array(points, float), min(len(points), POINTS))
            means = np.array([group.mean(0) for group in groups])
            curves[name] = [means[:, 0].round().tolist(), means[:, 1].round(4).tolist()]
    return curves


@dataclass
class _Listed:
    """An image with its number in the data set and its score by each model (NaN: no label)."""

    number: int
    path: str
    scores: list[float]

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores))


def _pictures(members: list[tuple[int, Row]], palette: list[list[int]]) -> list[dict[str, Any]]:
    """Chosen images, worst first: input, label, and prediction and errors of each model."""
    folders = [row.folder for _, row in members if row.folder is not None]
    chosen = _choose(_read_lists(folders))
    return [_picture(image, folders, [i for i, _ in members], palette) for image in chosen]


def _read_lists(folders: Iterable[Path]) -> list[_Listed]:
    images: list[_Listed] = []
    for folder in folders:
        with open(folder / LIST, newline='') as file:
            for number, (path, score) in enumerate(csv.reader(file)):
                if number == len(images):
                    images.append(_Listed(number, path, []))
                images[number].scores.append(float(score or 'nan'))
    return images


def _choose(images: list[_Listed]) -> list[_Listed]:
    ranked = sorted((i for i in images if not np.isnan(i.mean)), key=lambda image: image.mean)
    better = ranked[WORST:]
    spread = np.linspace(0, len(better) - 1, min(OTHERS, len(better))).round().astype(int)
    return ranked[:WORST] + [better[i] for i in spread]


def _picture(
    image: _Listed, folders: Sequence[Path], models: Sequence[int], palette: list[list[int]]
) -> dict[str, Any]:
    colors = [(*color, 255) for color in palette]
    outputs = {}
    for folder, model, score in zip(folders, models, image.scores, strict=True):
        saved = np.asarray(Image.open(folder / f'{image.number:06d}.png'))
        pred, label = _smaller(saved[..., 0]), _smaller(saved[..., 1])
        valid = label < len(palette)
        wrong = np.where(valid, pred != label, 2)
        share = 100 * wrong[valid].mean() if valid.any() else 0
        outputs[model] = dict(
            prediction=_png(pred, colors),
            errors=_png(wrong, WRONG),
            score=round(score, 2),
            wrong=round(float(share), 1),
        )
    size = label.shape[::-1]
    photo = cv2.imread(image.path, cv2.IMREAD_COLOR)
    if photo is None:  # the file was moved after the test
        photo = np.full((1, 1, 3), 128, np.uint8)
    photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode('.jpg', photo, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return dict(
        name=Path(image.path).name,
        score=round(image.mean, 2),
        input=_address('jpeg', jpeg.tobytes()),
        label=_png(label, colors),
        outputs=outputs,
    )


def _smaller(classes: np.ndarray) -> np.ndarray:
    h, w = classes.shape
    if w <= WIDTH:
        return classes
    size = WIDTH, max(1, round(h * WIDTH / w))
    return cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST)


def _png(classes: np.ndarray, colors: Sequence[tuple[int, ...]]) -> str:
    """PNG of class indices in RGBA colours; indices without a colour are transparent."""
    inside = np.where(classes < len(colors), classes, len(colors)).astype(np.uint8)
    picture = Image.fromarray(inside, 'P')
    table = [*colors, (0, 0, 0, 0)]
    picture.putpalette([value for color in table for value in color[:3]])
    file = io.BytesIO()
    picture.save(file, 'PNG', optimize=True, transparency=bytes(color[3] for color in table))
    return _address('png', file.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
