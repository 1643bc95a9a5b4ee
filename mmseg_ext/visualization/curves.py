"""Training curves as one picture; the only module that needs matplotlib (extra ``vis``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WINDOWS = 40  # the running mean spans this fraction of a curve


def draw_curves(
    path: Path, records: Sequence[Mapping[str, float]], names: Sequence[str], title: str = ''
) -> None:
    """Writes a PNG with one curve below the other over the iterations.

    Args:
        path: file to write.
        records: each with ``iter`` and some of the named values; those without a value are skipped.
        names: values to draw, e.g. ``loss``; a name that never occurs leaves its axes empty.
        title: line on top.
    """
    figure = Figure(figsize=(9, 2.4 * len(names) + 0.6), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    all_axes = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(all_axes, names, strict=True):
        points = [(r['iter'], r[name]) for r in records if name in r]
        if points:
            _draw_curve(axes, *np.array(points, float).T, noisy='loss' in name)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    all_axes[-1].set_xlabel('iteration')
    figure.savefig(path, dpi=100)


def _draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, *, noisy: bool) -> None:
    """A long noisy curve gets a running mean; short ones show their points."""
    window = len(values) // WINDOWS
    if noisy and window > 1:
        axes.plot(steps, values, color='C0', alpha=0.3, linewidth=0.8)
        kernel = np.ones(window) / window
        steps = np.convolve(steps, kernel, 'valid')
        values = np.convolve(values, kernel, 'valid')
    axes.plot(steps, values, color='C0', marker='.' if len(values) <= WINDOWS else None)
