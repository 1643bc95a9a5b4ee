"""Reliability diagram: accuracy against probability; needs matplotlib (extra ``vis``)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_curves(
    path: Path,
    probability: np.ndarray,
    accuracy: np.ndarray,
    names: Sequence[str],
    colors: Sequence[Sequence[int]],
) -> None:
    """Writes a PNG with a curve for each class; a calibrated model lies on the diagonal.

    Args:
        path: File to write.
        probability: Mean probability of the pixels in each bin, (K, bins); NaN without pixels.
        accuracy: Fraction of these pixels that are right, (K, bins).
        names: Names of the curves.
        colors: Colours of the curves, RGB, 0 to 255.
    """
    figure = Figure(figsize=(9, 6), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], '--', color='gray', linewidth=1)
    for x, y, name, color in zip(probability, accuracy, names, colors, strict=True):
        has_pixels = np.isfinite(x)
        axes.plot(x[has_pixels], y[has_pixels], '.-', color=np.array(color) / 255, label=name)
    axes.set_xlabel('probability')
    axes.set_ylabel('fraction of pixels that are right')
    axes.set_title('predicted class (expected calibration error)')
    axes.grid(alpha=0.3)
    figure.legend(loc='outside right center')
    figure.savefig(path, dpi=100)
