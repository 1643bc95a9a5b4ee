"""Prediction of an image, a folder or a video, for ``tools/predict.py``."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from mmseg_ext.config.checks import make_writable
from mmseg_ext.datasets.image_files import find_images
from mmseg_ext.errors import UserError
from mmseg_ext.inference.predictor import Predictor
from mmseg_ext.visualization.pictures import write_picture

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
VIDEO_SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm')


def find_inputs(source: Path) -> list[Path]:
    """Sorted images of a folder and its sub-folders; for a file, this file.

    Raises:
        UserError: The file or folder does not exist, the folder holds no image, two images differ
            in their suffix only, so that their results would have the same name, or see
            ``find_images``.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        problem = 'is no file' if source.exists() else 'does not exist'
        raise UserError(f'{source} {problem}: give an image, a folder or a video')
    paths = [Path(path) for path in find_images(source, IMAGE_SUFFIXES)]
    if not paths:
        raise UserError(f'{source} holds no image ({" ".join(IMAGE_SUFFIXES)})')
    name, count = Counter(path.with_suffix('') for path in paths).most_common(1)[0]
    if count > 1:
        raise UserError(
            f'{count} images are called {name} and differ in their suffix only: rename one'
        )
    return paths


def check_outside(source: Path, out: Path) -> None:
    """Refuses to write pictures into the folder whose images are read.

    Raises:
        UserError: ``out`` is ``source`` or lies in it.
    """
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(
            f'{out} lies in {source}, so results would become images: name another folder'
        )


def predict(predictor: Predictor, source: Path, out: Path) -> None:
    """Writes the pictures of an image, of all images of a folder, or of a video.

    For a file ``a/b.jpg`` of a folder it writes ``overlay/a/b.png``, ``color/a/b.png``,
    ``mask/a/b.png`` (class indices) and, with maps, ``explain/a/b.png``. For a model that predicts
    segments or objects it also writes ``panoptic/a/b.png`` and ``instances/a/b.png``. For a video
    ``b.mp4`` it writes ``overlay/b.mp4`` and so on. Masks of a video, and all its pictures if
    OpenCV has no codec, are folders of frames, such as ``mask/b``.

    Raises:
        UserError: The source does not exist, is empty or cannot be read, or ``out`` lies
            inside it or is not writable.
    """
    paths = find_inputs(source)
    check_outside(source, out)
    make_writable(out)
    if source.suffix.lower() in VIDEO_SUFFIXES:
        _predict_video(predictor, source, out)
        return
    root = source if source.is_dir() else source.parent
    for path in track(paths, 'predict'):
        for kind, picture in predictor.draw(predictor.file(path)).items():
            write_picture((out / kind / path.relative_to(root)).with_suffix('.png'), picture)


def _predict_video(predictor: Predictor, source: Path, out: Path) -> None:
    capture = cv2.VideoCapture(str(source))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    writers: dict[str, cv2.VideoWriter | None] = {}
    for i, frame in enumerate(
        track(_frames(capture), 'predict', total=total if total > 0 else None)
    ):
        pictures = predictor.draw(predictor.frame(frame), all_classes=True)
        for kind, picture in pictures.items():
            path = out / kind / source.stem
            if i == 0:
                writers[kind] = _open_video(path.with_suffix('.mp4'), picture, rate)
            writer = writers[kind]
            if writer is None:
                write_picture(path / f'{i:06d}.png', picture)
            else:
                writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    for writer in writers.values():
        if writer is not None:
            writer.release()
    if not writers:
        raise UserError(
            f'{source} cannot be read as a video: it is damaged or OpenCV has no codec for it'
        )


def _frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        success, frame = capture.read()
        if not success:
            return
        yield frame


def _open_video(path: Path, first: np.ndarray, rate: float) -> cv2.VideoWriter | None:
    """A writer for pictures like ``first``; None for class indices or without a codec."""
    if first.ndim == 2:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    fourcc = cv2.VideoWriter.fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(path), fourcc, rate, (first.shape[1], first.shape[0]))
    return writer if writer.isOpened() else None
