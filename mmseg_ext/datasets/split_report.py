"""Findings in a split of a data set, and the statistics of its labels."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass
class SplitReport:
    """Findings in one split of K classes; histograms count the labels after ``label_map``."""

    classes: tuple[str, ...]
    images: int = 0
    labels_read: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sizes: Counter = field(default_factory=Counter)  # (width, height) -> number of images
    ignored: int = 0  # pixels

    def __post_init__(self) -> None:
        self.pixels = np.zeros(len(self.classes), np.int64)
        self.images_with = np.zeros_like(self.pixels)
        self.pixels_around = np.zeros_like(self.pixels)  # valid pixels of the images with the class

    def add_label(self, counts: np.ndarray, ignored: int) -> None:
        """Adds one label's pixels per class, (K,)."""
        present = counts > 0
        self.labels_read += 1
        self.ignored += ignored
        self.pixels += counts
        self.images_with += present
        self.pixels_around += present * counts.sum()

    def constant_prediction(self) -> tuple[str, float]:
        """The best class to predict at every pixel, and the mIoU of that prediction in per cent.

        The IoU of this class is its fraction of the valid pixels, the IoU of each other class is 0.
        As in the metric, classes that never occur do not count.
        """
        share = self.pixels.max() / max(self.pixels.sum(), 1)
        miou = 100 * share / max((self.pixels > 0).sum(), 1)
        return self.classes[int(self.pixels.argmax())], float(miou)

    def class_weights(self) -> list[float]:
        """Weights (K,) by median frequency balancing (Eigen and Fergus, ICCV 2015).

        The frequency f_c of a class is its fraction of the valid pixels of the images that show it.
        Its weight is median(f) / f_c, or 1 for a class that never occurs.
        """
        present = self.pixels > 0
        frequency = self.pixels[present] / self.pixels_around[present]
        weights = np.ones(len(self.pixels))
        weights[present] = np.median(frequency) / frequency if present.any() else 1
        return [round(float(weight), 4) for weight in weights]

    def show(self, split: str, console: Console) -> None:
        """Prints all findings, and class weights for the training split, where they are used."""
        sizes = [f'{w}x{h} ({count})' for (w, h), count in self.sizes.most_common(4)]
        remainder = f' and {len(self.sizes) - 4} more sizes' if len(self.sizes) > 4 else ''
        console.print(f'{split}: {self.images} images; {", ".join(sizes)}{remainder}', style='bold')
        if self.labels_read:
            console.print(self._table())
            name, miou = self.constant_prediction()
            console.print(f'best constant prediction: {name} everywhere, mIoU {miou:.2f}')
        if self.labels_read and split == 'train':
            console.print('for loss_decode, median frequency balancing:')
            console.print(f'class_weight={self.class_weights()}')
        for warning in self.warnings:
            console.print(f'warning: {warning}', style='yellow')
        for problem in self.problems:
            console.print(f'problem: {problem}', style='red')

    def _table(self) -> Table:
        table = Table('class')
        for header in ('pixels', '% of valid', 'images'):
            table.add_column(header, justify='right')
        valid = max(int(self.pixels.sum()), 1)
        for name, pixels, images in zip(self.classes, self.pixels, self.images_with, strict=True):
            table.add_row(name, f'{pixels:,}', f'{100 * pixels / valid:.2f}', f'{images:,}')
        table.add_row('(ignored)', f'{self.ignored:,}', '', '', style='dim')
        return table
