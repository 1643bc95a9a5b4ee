"""Memory of MagNet's inference: batches of patches, and tiles of an image."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ...layers.sizes import Size
from .patches import Corner

MIB = 2**20
CPU_PIXELS = 2**15  # pixels of patches at a time on a CPU, where larger batches are not faster


def bytes_per_pixel(num_classes: int) -> int:
    """Bytes for a pixel of the last scale: two float32 maps, a map of a quarter, and small maps."""
    return 9 * num_classes + 48


def tiles_of(image: Size, max_pixels: float) -> list[tuple[slice, slice]]:
    """Rows and columns of the fewest tiles that cut an image so that no tile is too large.

    Args:
        image: Size (H, W) of the image.
        max_pixels: Largest number of pixels of a tile.
    """
    height, width = image
    rows = columns = 1
    while height / rows * width / columns > max(max_pixels, 1):
        if height * columns >= width * rows:
            rows += 1
        else:
            columns += 1
    return [(r, c) for r in _slices(height, rows) for c in _slices(width, columns)]


def _slices(length: int, count: int) -> list[slice]:
    edges = [i * length // count for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


class PatchBatches:
    """Batches of patches, as large as the memory allows.

    On a GPU the memory of a single patch is measured once, with the first patch.

    Args:
        input_size: Size (h, w) of a patch in the networks.
    """

    def __init__(self, input_size: Size) -> None:
        self.input_size = input_size
        self.patch_bytes: int | None = None  # on a GPU, after the first patch

    def run(
        self,
        process: Callable[[list[Corner]], Tensor],
        corners: list[Corner],
        *,
        device: torch.device,
        free_bytes: int,
    ) -> Iterator[tuple[list[Corner], Tensor]]:
        """Corners of each batch, and the result of ``process`` for them.

        Args:
            process: Function that runs the networks on the patches at some corners.
            corners: Corners of all patches.
            device: Device of the networks.
            free_bytes: Memory for the patches of a batch on a GPU.
        """
        while corners:
            count, run = 1, process
            if device.type != 'cuda':
                count = max(1, CPU_PIXELS // (self.input_size[0] * self.input_size[1]))
            elif self.patch_bytes is None:
                run = partial(self._measure, process, device)
            else:
                count = max(1, free_bytes // self.patch_bytes)
            batch, corners = corners[:count], corners[count:]
            yield batch, run(batch)

    def _measure(
        self, process: Callable[[list[Corner]], Tensor], device: torch.device, batch: list[Corner]
    ) -> Tensor:
        """Result of ``process``; the memory that it needs becomes ``patch_bytes``."""
        # A measured peak would need a reset of the peak statistics, which belong to the user. The
        # memory that the allocator holds after the run is at least the peak of the run. It is close
        # to the peak, because ``empty_cache`` returns the unused memory before.
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        results = process(batch)
        self.patch_bytes = max(1, torch.cuda.memory_reserved(device) - before)
        return results
