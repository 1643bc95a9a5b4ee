"""Summary of auto-labels: ``auto_label.json``, ``auto_label.png``, and a table."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from rich import box
from rich.table import Table

from mmseg_ext.checkpoints.write import write_atomically
from mmseg_ext.config.checks import make_writable
from mmseg_ext.datasets.pseudo_label import LABELS, PROBABILITIES, SUMMARY
from mmseg_ext.datasets.transforms import IGNORE_INDEX, read_image
from mmseg_ext.errors import UserError
from mmseg_ext.inference.reliability import EVERYTHING
from mmseg_ext.visualization.pictures import (
    Panel,
    class_legend,
    draw_maps,
    draw_strip,
    label_panel,
    write_picture,
)

STATISTICS = 'auto_label'  # key of the text in a label PNG: pixels per class, all and kept
PICTURE, DRAWN = 'auto_label.png', 4  # file, and number of images in it


def start_summary(out: Path, written: dict[str, Any], rank: int) -> None:
    """Writes the summary into a new folder; refuses a folder of another model or tool."""
    make_writable(out)
    has_labels = (out / LABELS).exists()  # read first: another process may write the summary now
    if not (out / SUMMARY).exists():
        if has_labels:
            raise UserError(
                f'{out / LABELS} exists without {SUMMARY}, so another tool made its labels: '
                'name another folder'
            )
        write_summary(out, written, rank)
        return
    before = json.loads((out / SUMMARY).read_text())
    for key in ('checkpoint_sha256', 'prediction_sha256', 'threshold', 'classes', 'label_ids'):
        if before.get(key) != written[key]:
            raise UserError(
                f'{out} holds labels made with another {key} ({_short(before.get(key))}, now '
                f'{_short(written[key])}; see {SUMMARY}): name another folder'
            )


def _short(value: Any) -> str:
    return str(value)[:12]


def write_summary(out: Path, written: dict[str, Any], rank: int) -> None:
    """Writes ``auto_label.json``, whole at any moment."""
    path = out / f'{SUMMARY}.{rank}'  # a file per process: several may write at the same time
    write_atomically(json.dumps(written, indent=1).encode(), path)
    os.replace(path, out / SUMMARY)


def sum_statistics(
    out: Path, names: Sequence[Path], classes: Sequence[str], thresholds: Sequence[str]
) -> dict[str, Any]:
    """Number of labelled pixels, and of pixels above each threshold, by class over all images."""
    total = np.zeros((1 + len(thresholds), len(classes)), np.int64)
    for name in names:
        with Image.open(out / LABELS / name) as label:  # reads the text without the pixels
            text = label.info.get(STATISTICS)
        if text is None:
            raise UserError(f'{out / LABELS / name} is no label of this tool: remove it')
        total += json.loads(text)
    return {
        name: dict(
            labelled=int(count),
            kept={t: int(k) for t, k in zip(thresholds, above, strict=True)},
            kept_fraction={
                t: round(int(k) / max(int(count), 1), 6)
                for t, k in zip(thresholds, above, strict=True)
            },
        )
        for name, (count, *above) in zip(classes, total.T, strict=True)
    }


def draw_some(
    out: Path, files: Sequence[tuple[Path, Path]], written: dict[str, Any], rank: int
) -> None:
    """Writes a picture of some images with their labels and, if they exist, probabilities."""
    classes, palette = written['classes'], written['palette']
    of_id = np.full(256, IGNORE_INDEX)
    of_id[written['label_ids']] = range(len(classes))
    panels: list[Panel] = []
    for i in np.linspace(0, len(files) - 1, min(DRAWN, len(files))).round().astype(int):
        path, name = files[i]
        image = read_image(path)[..., ::-1].copy()
        label = of_id[np.asarray(Image.open(out / LABELS / name))]
        row = [Panel(str(name.with_suffix(path.suffix)), image)]
        row.append(label_panel('label', image, label, palette))
        if written['threshold'] is None:
            prob = torch.from_numpy(np.array(Image.open(out / PROBABILITIES / name))) / 255
            row += draw_maps({'probability': prob[None]}, image, palette)
        size = panels[0].picture.shape[1::-1] if panels else image.shape[1::-1]
        panels += [replace(panel, picture=cv2.resize(panel.picture, size)) for panel in row]
    strip = draw_strip(panels, class_legend(panels, classes, palette), columns=len(row))
    path_of_rank = out / f'{rank}.{PICTURE}'  # as for the summary
    write_picture(path_of_rank, strip)
    os.replace(path_of_rank, out / PICTURE)


def summary_table(written: dict[str, Any]) -> Table:
    """Table of ``auto_label``'s result: pixels of each class, and the per cent above thresholds."""
    pixels = written['pixels']
    thresholds = list(next(iter(pixels.values()))['kept'])
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column('class\n', no_wrap=True)
    for head in ('pixels\nlabelled', '% of\nall', *(f'% kept\nat {t}' for t in thresholds)):
        table.add_column(head, justify='right', no_wrap=True)
    everything = sum(row['labelled'] for row in pixels.values())
    for name, row in pixels.items():
        shares = [
            f'{100 * row["kept_fraction"][t]:.1f}' if row['labelled'] else '-' for t in thresholds
        ]
        share = f'{100 * row["labelled"] / everything:.2f}'
        table.add_row(name, f'{row["labelled"]:,}', share, *shares)
    kept_pixels = [sum(row['kept'][t] for row in pixels.values()) for t in thresholds]
    table.add_section()
    kept_shares = [f'{100 * kept / everything:.1f}' for kept in kept_pixels]
    table.add_row('all', f'{everything:,}', '100.00', *kept_shares)
    return table


def reliability_table(written: dict[str, Any]) -> Table:
    """Table of the comparison with true labels, by predicted class."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column('predicted\nclass', no_wrap=True)
    heads = (
        'pixels with\na true label',
        '% of them\nright',
        'probability\n%',
        'calibration\nerror %',
    )
    for head in heads:
        table.add_column(head, justify='right', no_wrap=True)
    for name, row in written['reliability'].items():
        values = (row['accuracy'], row['probability'], row['calibration_error'])
        per_cent = [f'{100 * value:.1f}' if row['pixels'] else '-' for value in values]
        if name == EVERYTHING:
            table.add_section()
        table.add_row(name, f'{row["pixels"]:,}', *per_cent)
    return table
