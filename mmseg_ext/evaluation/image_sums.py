"""Sums over the images that a process tests, whatever their number."""

from typing import Any

from mmengine.dist import get_dist_info


class ImageSums:
    """Sums of what each image adds, without the images that a process is shown again.

    The sampler gives each process as many images by showing some again: the last of a process.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._images = 0
        self._total: Any = 0  # of all images but the last
        self._last: Any = 0

    def add(self, values: Any) -> None:
        self._images += 1
        self._total = self._total + self._last
        self._last = values

    def take(self, size: int) -> tuple[int, Any]:
        """Number and sum (0 for none) of this process's share of ``size`` images; then resets."""
        rank, world_size = get_dist_info()
        share = len(range(rank, size, world_size))
        repeats_last = self._images > share
        count = min(self._images, share)
        total = self._total if repeats_last else self._total + self._last
        self.reset()
        return count, total
