"""The memory bank: unit vectors of each class, of past images."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError
from .sampling import by_image, count_cells, draw, exclusive_cumsum, pixels_at

BELOW_ALL = -1e30  # a similarity that counts for nothing, and finite: its gradient is 0, not NaN
PIXELS_AT_A_TIME = 2**15  # of each image, for class means


@MODELS.register_module()
class MemoryBank(nn.Module):
    """Unit vectors of each class, of past images: its mean in an image, and a few of its pixels.

    A queue of a class goes round: new vectors take the place of the oldest. Nothing is read that
    was not written. All processes write what all of them saw, in the order of their ranks, so their
    banks are the same; each has to see the same number of images.

    Args:
        num_classes: K.
        channels: D, length of the vectors.
        size: M, vectors of a class in either queue (5000 as released).
        pixels_per_image: Pixels of a class that an image adds (10 as released).
        queues: 'region' (means), 'pixel' or both.

    Raises:
        ValueError: A size below 1, or another queue.
    """

    rows: Tensor
    written: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        *,
        size: int = 5000,
        pixels_per_image: int = 10,
        queues: Sequence[str] = ('region', 'pixel'),
    ) -> None:
        super().__init__()
        if size < 1 or pixels_per_image < 1:
            raise UserError(
                f'memory has size={size} and pixels_per_image={pixels_per_image}: '
                'both must be at least 1'
            )
        if not queues or not set(queues) <= {'region', 'pixel'}:
            raise UserError(f"memory has queues={queues!r}: choose ('region',), ('pixel',) or both")
        self.num_classes, self.size, self.pixels_per_image = num_classes, size, pixels_per_image
        self.queues = [queue for queue in ('region', 'pixel') if queue in queues]
        number = num_classes * len(self.queues) * size
        # One more row takes what is not meant to be written: choosing would wait for the device.
        self.register_buffer('rows', torch.zeros(number + 1, channels))
        written = torch.zeros(num_classes, len(self.queues), dtype=torch.long)
        self.register_buffer('written', written)  # in all, whatever has been overwritten since

    @property
    def vectors(self) -> Tensor:
        """(K, Q, M, D), the queues of each class; a view."""
        return self.rows[:-1].view(*self.written.shape, self.size, -1)

    @property
    def count(self) -> Tensor:
        """(K, Q), how many of the M places are filled."""
        return self.written.clamp(max=self.size)

    @property
    def filled(self) -> Tensor:
        """(K, Q*M), bool."""
        places = torch.arange(self.size, device=self.rows.device)
        return (places < self.count[..., None]).flatten(1)

    def similarities(self, x: Tensor) -> Tensor:
        """Products (S, K, Q*M) of vectors (S, D) with all places, ``BELOW_ALL`` if empty."""
        empty = torch.where(self.filled.flatten(), 0.0, BELOW_ALL).to(x.dtype)
        return F.linear(x, self.rows[:-1].to(x.dtype), empty).unflatten(1, (self.num_classes, -1))

    @torch.no_grad()
    def update(self, label: Tensor, features: Tensor, embed: Callable[[Tensor], Tensor]) -> None:
        """Adds the classes of some images, of all processes; to be called after the loss.

        Args:
            label: (N, h, w), K where ignored.
            features: (N, C, h, w).
            embed: Rows (..., C) of ``features`` to unit vectors (..., D).
        """
        n, k = len(label), self.num_classes
        cells = by_image(label, k)
        counts = count_cells(cells, n * k + 1)
        rows, added = [], []
        if 'region' in self.queues:
            rows.append(class_means(label, features, embed, k)[:, :, None])
            added.append(counts[:-1].clamp(max=1))
        if 'pixel' in self.queues:
            width = self.pixels_per_image
            quota = F.pad(counts[:-1].clamp(max=width), (0, 1))
            start = torch.arange(n * k + 1, device=label.device) * width
            index = draw(cells.flatten(), quota, start, n * k * width)
            rows.append(embed(pixels_at(features, index)).view(n, k, width, -1))
            added.append(quota[:-1])
        self._write(torch.cat(rows, dim=2), torch.stack(added, dim=1).view(n, k, -1))

    def _write(self, rows: Tensor, added: Tensor) -> None:
        """Appends the first ``added`` (N, K, Q) of each queue's part of ``rows`` (N, K, R, D)."""
        rows, added = (torch.cat(all_gather(x.contiguous())) for x in (rows, added))
        k, q = self.written.shape
        widths = [1 if queue == 'region' else self.pixels_per_image for queue in self.queues]
        for i, new in enumerate(rows.split(widths, dim=2)):
            rank = torch.arange(widths[i], device=rows.device)
            place = exclusive_cumsum(added[:, :, i])[..., None] + rank  # (N, K, width)
            total = added[:, :, i].sum(0)
            # Two rows for one place have no order: only the last M of this call are written.
            meant = (rank < added[:, :, i, None]) & (place >= (total - self.size)[:, None])
            queue = torch.arange(k, device=rows.device)[:, None] * q + i
            place = (self.written[:, i, None] + place) % self.size + queue * self.size
            place = place.masked_fill(~meant, len(self.rows) - 1)
            new = new.masked_fill(~meant[..., None], 0).to(self.rows.dtype)
            self.rows[place.flatten()] = new.flatten(0, 2)
            self.written[:, i] += total


@torch.no_grad()
def class_means(
    label: Tensor, features: Tensor, embed: Callable[[Tensor], Tensor], num_classes: int
) -> Tensor:
    """Mean direction of each class in each image, (N, K, D); 0 for a class without pixels.

    Args:
        label: (N, h, w), K where ignored.
        features: (N, C, h, w).
        embed: Rows (..., C) of ``features`` to unit vectors (..., D).
        num_classes: K.
    """
    classes = torch.arange(num_classes, device=label.device)
    total: Tensor | float = 0.0
    for pixels, own in zip(
        features.flatten(2).split(PIXELS_AT_A_TIME, dim=2),
        label.flatten(1).split(PIXELS_AT_A_TIME, dim=1),
        strict=True,
    ):
        unit = embed(pixels.mT)  # (N, pixels, D)
        with torch.autocast(unit.device.type, enabled=False):
            total = total + (own[:, None] == classes[:, None]).to(unit.dtype) @ unit
    assert isinstance(total, Tensor)
    return F.normalize(total, dim=2)
