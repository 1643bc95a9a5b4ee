"""Class centroids of a label, as released: a loop over the classes of every whole tile."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.datasets.class_centroids import class_centroids


def class_centroids_released(label: np.ndarray, num_classes: int, tile: int) -> np.ndarray:
    """Rows (class, x, y) of a label (H, W), sorted by class, then by tile in raster order."""
    rows: list[list[tuple[int, int, int]]] = [[] for _ in range(num_classes)]
    for top in range(0, label.shape[0] // tile * tile, tile):
        for left in range(0, label.shape[1] // tile * tile, tile):
            patch = label[top : top + tile, left : left + tile]
            for c in range(num_classes):
                mask = patch == c
                if mask.any():
                    y, x = np.where(mask)
                    rows[c].append((c, left + int(x.mean()), top + int(y.mean())))
    return np.array([row for of_class in rows for row in of_class]).reshape(-1, 3)


def _make(device: torch.device) -> tuple[Run, Run]:
    """A label of blobs of many sizes; NumPy runs on the CPU whatever the device."""
    small = torch.randn(1, 19, 32, 64)
    noise = F.interpolate(small, (1024, 2048), mode='bicubic', align_corners=False)
    label = noise.argmax(1)[0].to(torch.uint8).numpy()

    def run(form: Callable[[np.ndarray, int, int], np.ndarray]) -> Run:
        return lambda: [torch.from_numpy(form(label, 19, 1024))]

    return run(class_centroids), run(class_centroids_released)


BENCHMARKS = [OpBenchmark('centroids', '1024x2048, 19 classes', _make)]
