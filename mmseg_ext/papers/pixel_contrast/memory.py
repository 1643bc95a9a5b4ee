"""The memory bank: unit vectors of each class from past images."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError
from .sampling import by_image, count_cells, draw, exclusive_cumsum, pixels_at

BELOW_ALL = -1e30  # a similarity that adds nothing to a sum; finite, so that gradients are not NaN
PIXELS_AT_A_TIME = 2**15  # of each image, in class means


@MODELS.register_module()
class MemoryBank(nn.Module):
    """Unit vectors of each class from past images: means over an image, and single pixels.

    In a full queue new vectors replace the oldest. Places that were never filled are not read.
    Pixels with a feature that is not finite are not written. All processes write the vectors of all
    processes, in the order of their ranks, so that their banks are equal. Each process has to see
    the same number of images.

    Args:
        num_classes: Number of classes (K).
        channels: Length of the vectors (D).
        size: Number of vectors of a class in each queue (M; 5000 as released), or a number for each
            queue, such as ``dict(region=2975, pixel=29750)``: in the paper a mean of every training
            image, and ten pixels for each of them.
        pixels_per_image: Number of pixels of a class that an image adds (10 as released).
        queues: Names of the queues (Q): 'region' for means, 'pixel' for single pixels, or both.

    Raises:
        UserError: A size below 1 or missing, or another queue.
    """

    rows: Tensor
    written: Tensor
    _replaced: list[tuple[Tensor, Tensor, Tensor]] | None = None  # None: writes are not recorded

    def __init__(
        self,
        num_classes: int,
        channels: int,
        *,
        size: int | Mapping[str, int] = 5000,
        pixels_per_image: int = 10,
        queues: Sequence[str] = ('region', 'pixel'),
    ) -> None:
        super().__init__()
        if not queues or not set(queues) <= {'region', 'pixel'}:
            raise UserError(f"memory has queues={queues!r}: choose ('region',), ('pixel',) or both")
        self.queues = [queue for queue in ('region', 'pixel') if queue in queues]
        size_of_queue = size if isinstance(size, Mapping) else dict.fromkeys(self.queues, size)
        if set(size_of_queue) != set(self.queues):
            raise UserError(
                f'memory has queues {self.queues} and sizes of {list(size_of_queue)}: give a size '
                'for each queue'
            )
        self.sizes = [size_of_queue[queue] for queue in self.queues]
        if min(*self.sizes, pixels_per_image) < 1:
            raise UserError(
                f'memory has size={size} and pixels_per_image={pixels_per_image}: '
                'both must be at least 1'
            )
        self.num_classes, self.pixels_per_image = num_classes, pixels_per_image
        # Class after class, and in a class queue after queue. The last row receives vectors to be
        # dropped: a selection would wait for the device.
        self.register_buffer('rows', torch.zeros(num_classes * sum(self.sizes) + 1, channels))
        written = torch.zeros(num_classes, len(self.queues), dtype=torch.long)
        self.register_buffer('written', written)  # since the start

    @property
    def vectors(self) -> Tensor:
        """Queues of each class, (K, Q, M, D); a view, for queues of the same size."""
        return self.rows[:-1].view(*self.written.shape, self.sizes[0], -1)

    @property
    def count(self) -> Tensor:
        """Number of filled places in each queue, (K, Q)."""
        limits = zip(self.written.unbind(1), self.sizes, strict=True)
        return torch.stack([written.clamp(max=size) for written, size in limits], dim=1)

    @property
    def filled(self) -> Tensor:
        """Whether a place is filled, (K, R), bool; R is the sum of the queues' sizes."""
        device = self.rows.device
        counts = zip(self.count.split(1, dim=1), self.sizes, strict=True)
        return torch.cat([torch.arange(m, device=device) < count for count, m in counts], dim=1)

    def similarities(self, x: Tensor) -> Tensor:
        """Products (S, K, R) of vectors (S, D) with all places; ``BELOW_ALL`` at empty places."""
        empty = torch.where(self.filled.flatten(), 0.0, BELOW_ALL).to(x.dtype)
        return F.linear(x, self.rows[:-1].to(x.dtype), empty).unflatten(1, (self.num_classes, -1))

    @torch.no_grad()
    def update(self, label: Tensor, features: Tensor, embed: Callable[[Tensor], Tensor]) -> None:
        """Adds the images of a batch, from all processes; is called after the loss.

        Args:
            label: Class indices (N, h, w), K where ignored.
            features: Features (N, C, h, w).
            embed: Function of features (..., C) to unit vectors (..., D).
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
        """Appends vectors to the queues, without vectors of length 0 or NaN.

        Args:
            rows: Vectors (N, K, R, D), along R those of the first queue, then those of the second.
            added: Number of these vectors that each queue gets, from the first on, (N, K, Q).
        """
        rows, added = (torch.cat(all_gather(x.contiguous())) for x in (rows, added))
        widths = [1 if queue == 'region' else self.pixels_per_image for queue in self.queues]
        first = torch.arange(self.num_classes, device=rows.device)[:, None] * sum(self.sizes)
        for i, new in enumerate(rows.split(widths, dim=2)):
            rank = torch.arange(widths[i], device=rows.device)
            is_vector = (rank < added[:, :, i, None]) & (new.norm(dim=3) > 0)  # (N, K, width)
            count = is_vector.sum(2)
            order = exclusive_cumsum(count)[..., None] + is_vector.cumsum(2) - 1
            total = count.sum(0)
            # Of two writes to a row either may win, so only the last M vectors are written.
            is_written = is_vector & (order >= (total - self.sizes[i])[:, None])
            row = first + sum(self.sizes[:i]) + (self.written[:, i, None] + order) % self.sizes[i]
            row = row.masked_fill(~is_written, len(self.rows) - 1).flatten()
            new = new.masked_fill(~is_written[..., None], 0).to(self.rows.dtype)
            if self._replaced is not None:
                self._replaced.append((row, self.rows[row], self.written.clone()))
            self.rows[row] = new.flatten(0, 2)
            self.written[:, i] += total

    def record_writes(self) -> None:
        """Forgets earlier writes, and remembers the rows that the following ones replace."""
        self._replaced = []

    @torch.no_grad()
    def undo_writes(self) -> None:
        """Restores the bank as it was at the last call of ``record_writes``."""
        while self._replaced:
            row, replaced, written = self._replaced.pop()
            self.rows[row] = replaced
            self.written.copy_(written)


@torch.no_grad()
def class_means(
    label: Tensor, features: Tensor, embed: Callable[[Tensor], Tensor], num_classes: int
) -> Tensor:
    """Mean direction of each class in each image, (N, K, D); 0 for a class without pixels.

    Pixels with a feature that is not finite are left out.

    Args:
        label: Class indices (N, h, w), K where ignored.
        features: Features (N, C, h, w).
        embed: Function of features (..., C) to unit vectors (..., D).
        num_classes: Number of classes (K).
    """
    classes = torch.arange(num_classes, device=label.device)
    total: Tensor | float = 0.0
    for pixels, pixel_label in zip(
        features.flatten(2).split(PIXELS_AT_A_TIME, dim=2),
        label.flatten(1).split(PIXELS_AT_A_TIME, dim=1),
        strict=True,
    ):
        # (N, pixels, D); an infinite feature gives a vector of zeros and NaN
        unit = embed(pixels.mT).nan_to_num()
        with torch.autocast(unit.device.type, enabled=False):
            total = total + (pixel_label[:, None] == classes[:, None]).to(unit.dtype) @ unit
    assert isinstance(total, Tensor)
    return F.normalize(total, dim=2)
