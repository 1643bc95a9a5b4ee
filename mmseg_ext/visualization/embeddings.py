"""Picture of pixel embeddings as points in class colours; needs matplotlib (extra ``vis``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

TSNE_POINTS = 2000  # t-SNE of more points takes minutes
Fill = Mapping[int, Sequence[Sequence[float]]]  # iteration -> fraction filled, by class and queue


def principal_components(vectors: Tensor, number: int = 2) -> Tensor:
    """Coordinates (P, number) of vectors (P, D) on the axes of largest variance, largest first."""
    centred = (vectors - vectors.mean(0)).double()
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :number]
    return (centred @ axes).to(vectors.dtype)


def tsne(vectors: Tensor) -> Tensor:
    """Coordinates (P, 2) of vectors (P, D) by t-SNE, the same in every call; needs scikit-learn."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    model = TSNE(init='pca', perplexity=perplexity, random_state=0)
    return torch.from_numpy(model.fit_transform(vectors.numpy()))


def draw_embeddings(
    path: Path,
    vectors: Tensor,
    label: Tensor,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    fill: Fill | None = None,
    queues: Sequence[str] = (),
    *,
    with_tsne: bool = False,
) -> None:
    """Writes a PNG of pixels at the first two principal components of their vectors.

    Args:
        path: File to write.
        vectors: Vectors of the pixels, (P, D).
        label: Class indices of the pixels, (P,).
        classes: Names of the classes.
        palette: Colours of the classes, RGB, 0 to 255.
        fill: Fraction of each class's memory that was filled, by iteration; it is drawn too.
        queues: Names of the memory's queues.
        with_tsne: Whether a second plot shows ``TSNE_POINTS`` of the pixels by t-SNE.
    """
    columns = 1 + with_tsne + bool(fill)
    figure = Figure(figsize=(7 * columns + 2, 6), layout='constrained')
    FigureCanvasAgg(figure)
    scatter, *further_axes = figure.subplots(1, columns, squeeze=False)[0]
    _draw_points(scatter, principal_components(vectors), label, classes, palette)
    scatter.set_title(f'{len(vectors)} pixels, first two principal components')
    if with_tsne:
        axes, *further_axes = further_axes
        chosen = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))
        chosen = chosen[:TSNE_POINTS].sort().values
        _draw_points(axes, tsne(vectors[chosen]), label[chosen], classes, palette)
        axes.set_title(f'{len(chosen)} pixels, t-SNE')
    for axes in further_axes:
        assert fill
        _draw_fill(axes, fill, queues, palette)
    handles, names = scatter.get_legend_handles_labels()
    figure.legend(handles=handles, labels=names, loc='outside right center', markerscale=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _draw_points(
    axes: Axes,
    points: Tensor,
    label: Tensor,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> None:
    """Draws points (P, 2) in the colours of their classes."""
    for c, name in enumerate(classes):
        of_class = label == c
        color = np.array(palette[c]) / 255
        name = f'{name} ({int(of_class.sum())})'
        x, y = points[of_class].T.numpy()
        axes.scatter(x, y, s=4, color=color, label=name)


def _draw_fill(
    axes: Axes, fill: Fill, queues: Sequence[str], palette: Sequence[Sequence[int]]
) -> None:
    steps, values = list(fill), np.array(list(fill.values()))  # (T,), (T, K, Q)
    styles = ('-', '--')
    for c, q in np.ndindex(*values.shape[1:]):
        color = np.array(palette[c]) / 255
        axes.plot(steps, values[:, c, q], styles[q], color=color, marker='.')
    words = ', '.join(f'{queue} {style}' for queue, style in zip(queues, styles, strict=False))
    axes.set_title(f'memory filled ({words})')
    axes.set_xlabel('iteration')
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
