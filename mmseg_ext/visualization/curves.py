"""Picture of training curves; needs matplotlib (extra ``vis``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WINDOWS = 40  # the running mean spans 1 / WINDOWS of a curve


def draw_curves(
    path: Path,
    records: Sequence[Mapping[str, float]],
    names: Sequence[str | Sequence[str]],
    title: str = '',
) -> None:
    """Writes a PNG of curves over the iterations, in axes below each other.

    Args:
        path: File to write.
        records: Logged values by name, with ``iter``; a curve skips records without its value.
        names: Names of the values to draw, such as ``loss``. A list of names shares the same axes,
            whose label is the first name. A name without values has no curve.
        title: Title of the picture.
    """
    figure = Figure(figsize=(9, 2.4 * len(names) + 0.6), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    all_axes = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    for axes, together in zip(all_axes, names, strict=True):
        together = [together] if isinstance(together, str) else together
        curves = {name: [(r['iter'], r[name]) for r in records if name in r] for name in together}
        for i, (name, points) in enumerate(curves.items()):
            if points:
                steps, values = np.array(points, float).T
                style = dict(color=f'C{i}', label=name)
                _draw_curve(axes, steps, values, style, noisy='loss' in name)
        if sum(map(bool, curves.values())) > 1:
            axes.legend()
        axes.set_ylabel(together[0])
        axes.grid(alpha=0.3)
    all_axes[-1].set_xlabel('iteration')
    figure.savefig(path, dpi=100)


def _draw_curve(
    axes: Axes, steps: np.ndarray, values: np.ndarray, style: dict[str, Any], *, noisy: bool
) -> None:
    """Draws a curve: long noisy curves with a running mean, short curves with their points."""
    window = len(values) // WINDOWS
    if noisy and window > 1:
        axes.plot(steps, values, color=style['color'], alpha=0.3, linewidth=0.8)
        kernel = np.ones(window) / window
        steps = np.convolve(steps, kernel, 'valid')
        values = np.convolve(values, kernel, 'valid')
    marker = '.' if len(values) <= WINDOWS else None
    axes.plot(steps, values, marker=marker, **style)
