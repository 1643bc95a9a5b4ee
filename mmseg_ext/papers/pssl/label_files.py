"""Files of labels: a PNG of the top tenth, or of all tenths, for each image, and a summary."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmseg_ext.checkpoints.write import write_atomically
from mmseg_ext.datasets.transforms import naming

from ...errors import UserError
from .pixel_labels import TENTHS, TOP

SUMMARY = 'pssl.json'
STATISTICS = 'pssl'  # key of the text in a PNG
BITS = 4  # that hold a tenth


def write_label(path: Path, tenths: np.ndarray, statistics: dict, *, all_tenths: bool) -> None:
    """Writes the label of an image; the file is complete or absent.

    Args:
        path: Path of the PNG.
        tenths: Deciles of the pixels, uint8 (H, W).
        statistics: Numbers of the image for the summary, written into the file.
        all_tenths: Whether to write all tenths, in 4 bits a pixel, and not the top one in 1 bit.
    """
    text = PngInfo()
    text.add_text(STATISTICS, json.dumps(statistics))
    file = BytesIO()
    if all_tenths:
        picture = Image.fromarray(tenths).convert('P')
        picture.putpalette([v for d in range(TENTHS) for v in [d * 255 // TOP] * 3])
        picture.save(file, 'PNG', bits=BITS, pnginfo=text, optimize=False)
    else:
        Image.fromarray(tenths == TOP).save(file, 'PNG', pnginfo=text)
    write_atomically(file.getvalue(), path)


def read_foreground(path: str | Path, top: int, ignored: Sequence[int] = ()) -> np.ndarray:
    """Foreground in the file of a label, int8 (H, W): 1 inside, 0 outside, -1 ignored.

    Args:
        path: Path of a PNG of ``write_label``, or of a released ``.npz``, whose value 1 is
            foreground.
        top: Lowest decile of the foreground, for files with all tenths.
        ignored: Values of a ``.npz`` to ignore.

    Raises:
        UserError: The file is damaged or of another kind, or it has the top tenth only and ``top``
            is lower.
    """
    with naming(str(path), 'a label'):
        if str(path).endswith('.npz'):
            return _read_npz(path, ignored)
        with Image.open(path) as picture:
            values = np.array(picture)
            mode = picture.mode
    if mode == '1':
        if top != TOP:
            raise UserError(
                f'{path} holds the top tenth only: set top={TOP}, or make labels by --deciles'
            )
        return values.astype(np.int8)
    if mode != 'P' or values.max(initial=0) > TOP:
        raise UserError(
            f'{path} is no label of tools/pssl_labels.py, but an image of the mode {mode}: name '
            'its output folder in seg_map_path'
        )
    return (values >= top).astype(np.int8)


def _read_npz(path: str | Path, ignored: Sequence[int]) -> np.ndarray:
    try:
        with np.load(path) as file:
            values = file['arr_0']
    except (KeyError, ValueError, EOFError, OSError, BadZipFile) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UserError(
            f'{path} cannot be decoded as a label, an array arr_0: restore the file or remove it'
        ) from error
    return np.where(values == 1, 1, np.where(np.isin(values, ignored), -1, 0)).astype(np.int8)


def read_statistics(path: Path) -> dict[str, Any]:
    """Numbers that ``write_label`` put into a file.

    Raises:
        UserError: The file is damaged or of another program.
    """
    with naming(str(path), 'a label'), Image.open(path) as picture:
        text = picture.info.get(STATISTICS)
        picture.load()
    if text is None:
        raise UserError(f'{path} is not of tools/pssl_labels.py: remove it, or name another --out')
    statistics: dict[str, Any] = json.loads(text)
    return statistics


def read_summary(folder: str | Path) -> dict[str, Any]:
    """Content of the summary in a folder of labels.

    Raises:
        UserError: It does not exist or is damaged.
    """
    path = Path(folder) / SUMMARY
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f'{path}, which names the classes of the labels, does not exist: set seg_map_path to '
            'the folder that tools/pssl_labels.py wrote'
        ) from None
    except ValueError as error:
        raise UserError(f'{path} is damaged: remove it and run the tool again') from error
    return content


def write_summary(folder: Path, content: dict[str, Any]) -> None:
    """Writes the summary."""
    write_atomically((json.dumps(content, indent=1) + '\n').encode(), folder / SUMMARY)
