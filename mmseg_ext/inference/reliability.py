"""Compares the probabilities of auto-labels with true labels: are p of 100 pixels right?

The expected calibration error is that of Guo et al., "On Calibration of Modern Neural Networks",
ICML 2017, with 15 bins, for each class that the model predicts.
"""

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_ext.config.walk import leaf_datasets
from mmseg_ext.datasets.pseudo_label import LABELS, PROBABILITIES, Threshold
from mmseg_ext.datasets.transforms import IGNORE_INDEX, LoadSegMap
from mmseg_ext.errors import UserError

BINS = 15  # 17 values of a probability PNG in each
PICTURE = 'reliability.png'
EVERYTHING = 'all'  # row of all classes together


class Hits(NamedTuple):
    """Numbers of pixels by predicted class and value of the probability PNG, each (K, 256)."""

    total: np.ndarray
    right: np.ndarray


class Bins(NamedTuple):
    """Sums over the pixels of each bin, each (K, BINS)."""

    total: np.ndarray
    right: np.ndarray
    probability: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Expected calibration error of each class, (K,); 0 without pixels."""
        gaps = np.abs(self.right - self.probability).sum(1)
        return gaps / np.maximum(self.total.sum(1), 1)


def bins_of(hits: Hits) -> Bins:
    """Sums over bins of equal width; the value v of a PNG stands for (v + 1/2) / 255."""
    values = np.arange(256)
    probability = np.minimum((values + 0.5) / 255, 1)
    in_bin = np.minimum(values // (255 // BINS), BINS - 1)[:, None] == np.arange(BINS)
    return Bins(hits.total @ in_bin, hits.right @ in_bin, (hits.total * probability) @ in_bin)


def check_comparison(threshold: Threshold | None) -> None:
    """Checks that there will be probabilities to compare, and a library that draws them.

    Raises:
        UserError: There is a threshold, or matplotlib is missing.
    """
    if threshold is not None:
        raise UserError(
            '--true-labels compares probabilities, which --threshold does not write: omit '
            '--threshold'
        )
    if find_spec('matplotlib') is None:
        raise UserError(
            f'--true-labels draws {PICTURE}, which needs matplotlib: pip install matplotlib'
        )


def find_true_labels(
    config: Config, images: Path, folder: Path, names: Sequence[Path], classes: Sequence[str]
) -> dict[Path, dict]:
    """Items of the test data set, by the name of the auto-label, of the images with a true label.

    Args:
        config: Config whose test data set knows the names and values of true labels.
        images: Folder of images.
        folder: Folder of true labels.
        names: Names of the auto-labels, relative to their folder.
        classes: Classes of the auto-labels.

    Raises:
        UserError: The folder does not exist, no image has a true label, or the data set has other
            classes than the model.
    """
    if not folder.is_dir():
        raise UserError(f'{folder} does not exist: set --true-labels to a folder of true labels')
    leaf = leaf_datasets(config.test_dataloader)[0]
    folders = dict(img_path=str(images), seg_map_path=str(folder))
    options: dict[str, Any] = dict(data_root=None, data_prefix=folders, ann_file='', pipeline=[])
    dataset = DATASETS.build({**leaf, **options, 'test_mode': True})
    of_dataset = list(dataset.metainfo.get('classes') or ())
    if of_dataset != list(classes):
        raise UserError(
            f"the checkpoint's classes {list(classes)[:3]}, ... are not those of the test data set "
            f'{of_dataset[:3]}, ...: --true-labels needs the same classes'
        )
    items, labelled = {}, set(names)
    for item in (dataset.get_data_info(i) for i in range(len(dataset))):
        name = Path(item['img_path']).relative_to(images).with_suffix('.png')
        if name in labelled and Path(item['seg_map_path']).is_file():
            items[name] = item
    if not items:
        raise UserError(
            f'no image of {images} has a true label in {folder}; expected for example '
            f'{dataset.get_data_info(0)["seg_map_path"]}: correct --true-labels, or seg_map_suffix '
            'of the test data set'
        )
    return items


def count_hits(out: Path, truth: Mapping[Path, dict], label_ids: Sequence[int]) -> Hits:
    """Counts the labelled pixels that have a true label, and those of them that are right."""
    classes_of_ids = np.full(256, IGNORE_INDEX)
    classes_of_ids[list(label_ids)] = range(len(label_ids))
    number, load = len(label_ids), LoadSegMap()
    sums = np.zeros((2, number * 256), np.int64)
    for name, item in truth.items():
        label = classes_of_ids[np.asarray(Image.open(out / LABELS / name))]
        prob = np.asarray(Image.open(out / PROBABILITIES / name))
        true = load.transform({**item, 'ori_shape': label.shape})['gt_seg_map']
        cells = label * 256 + prob
        for i, counted in enumerate((true < number, true == label)):
            sums[i] += np.bincount(cells[counted], minlength=number * 256)
    return Hits(*sums.reshape(2, number, 256))


def with_everything(hits: Hits) -> Hits:
    """The counts with a last row of all classes together."""
    return Hits(*(np.vstack([counts, counts.sum(0)]) for counts in hits))


def summarize_reliability(hits: Hits, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Pixels, accuracy, mean probability and expected calibration error of each predicted class."""
    bins = bins_of(with_everything(hits))
    sums = (values.sum(1) for values in bins)
    rows = zip((*classes, EVERYTHING), *sums, bins.error, strict=True)
    return {
        name: dict(
            pixels=int(total),
            accuracy=round(float(right / max(total, 1)), 6),
            probability=round(float(probability / max(total, 1)), 6),
            calibration_error=round(float(error), 6),
        )
        for name, total, right, probability, error in rows
    }


def draw_reliability(out: Path, hits: Hits, written: dict[str, Any], rank: int) -> None:
    """Writes ``reliability.png``: accuracy against probability, a curve for each class."""
    from mmseg_ext.visualization.reliability import draw_curves

    bins = bins_of(with_everything(hits))
    has_pixels = bins.total.sum(1) > 0
    names = [
        f'{name} ({100 * error:.1f} %)'
        for name, error in zip((*written['classes'], EVERYTHING), bins.error, strict=True)
    ]
    colors = [*written['palette'], [0, 0, 0]]
    counts = np.maximum(bins.total, 1)
    curves = np.where(bins.total > 0, np.stack([bins.probability, bins.right]) / counts, np.nan)
    path = out / f'{rank}.{PICTURE}'  # a file per process: several may write at the same time
    names, colors = (list(compress(values, has_pixels.tolist())) for values in (names, colors))
    draw_curves(path, curves[0, has_pixels], curves[1, has_pixels], names, colors)
    os.replace(path, out / PICTURE)
