"""Sums over the images of a process, without storing the images' values."""

from typing import Any

from mmengine.dist import get_dist_info


class ImageSums:
    """Sum of the values of each image; repeated images are not counted.

    The sampler gives each process the same number of images and repeats some for this purpose. A
    repeated image is the last image of its process.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._images = 0
        self._total: Any = 0  # sum of all images except the last
        self._last: Any = 0

    def add(self, values: Any) -> None:
        """Adds the values of an image."""
        self._images += 1
        self._total = self._total + self._last
        self._last = values

    def take(self, size: int) -> tuple[int, Any]:
        """Number of this process's images, of ``size`` in total, and their sum; resets both."""
        rank, world_size = get_dist_info()
        num_images = len(range(rank, size, world_size))
        again = self._images > num_images
        taken = min(self._images, num_images), self._total if again else self._total + self._last
        self.reset()
        return taken
