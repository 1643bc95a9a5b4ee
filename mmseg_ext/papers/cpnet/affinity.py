"""Affinity loss of CPNet, which trains the prior."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...errors import UserError
from ...layers.precision import at_least_float32
from ...layers.sizes import Size

PAIRS = 2**20  # pairs of a pixel and a cell that the loss handles at a time: they fit a CPU's cache
IGNORED, HIDDEN = -1, -2  # class of ignored pixels, and of cells that no sum counts


def class_ids(label: Tensor, size: Size, ignore_index: int = 255) -> Tensor:
    """Classes (N, L) at the positions of a map of ``size``, from labels (N, h, w) of any size.

    Ignored pixels become ``IGNORED``.
    """
    label = F.interpolate(label[:, None].float(), size, mode='nearest').flatten(1).long()
    return label.masked_fill(label == ignore_index, IGNORED)


def _blocks(
    logits: Tensor, cells: Tensor, pixels: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Blocks of k cells: their slice, their logits (N, k, L), and which pairs share a class."""
    step = max(1, PAIRS // (logits.shape[0] * logits.shape[2]))
    for start in range(0, logits.shape[1], step):
        block = slice(start, start + step)
        yield block, logits[:, block], cells[:, block, None] == pixels[:, None]


def _diagonal(pairs: Tensor, block: slice) -> Tensor:
    """Pairs of a pixel with the cell at its position, in a block (N, k, L)."""
    return pairs[:, :, block].diagonal(dim1=1, dim2=2)


class _PixelSums(torch.autograd.Function):
    """Four sums (N, L) over the cells of each pixel, each with a single pass over the logits.

    Takes logits (N, K, L) of the prior P, the classes of cells (N, K) and of pixels (N, L), and
    whether cells and pixels are the same positions. Returns, for each pixel:

    - ``match``: sum of P over the cells of the pixel's class, without the cell at its position;
    - ``mismatch``: sum of P over all other cells;
    - ``rejected``: sum of 1 - P over the cells of other classes;
    - ``entropy``: sum of the binary cross entropy of P over all cells.

    Each sum adds its terms directly, because differences of sums would lose digits.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, cells: Tensor, pixels: Tensor, aligned: bool
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(logits, cells, pixels)
        ctx.aligned = aligned
        match, mismatch, rejected, entropy = logits.new_zeros(4, *pixels.shape)
        for block, z, same_class in _blocks(logits, cells, pixels):
            entropy += F.softplus(torch.where(same_class, -z, z)).sum(1)
            probs = z.sigmoid()
            uncounted = same_class | (cells[:, block, None] == HIDDEN)
            rejected += (1 - probs).masked_fill_(uncounted, 0).sum(1)
            matching = torch.where(same_class, probs, 0)
            if aligned:
                _diagonal(matching, block).zero_()
            match += matching.sum(1)
            mismatch += probs.sub_(matching).sum(1)
        return match, mismatch, rejected, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        logits, cells, pixels = ctx.saved_tensors
        match, mismatch, rejected, entropy = (grad[:, None] for grad in grads)
        result = torch.empty_like(logits)
        for block, z, same_class in _blocks(logits, cells, pixels):
            probs = z.sigmoid()
            slope = torch.where(same_class, match, mismatch - rejected)
            if ctx.aligned:
                _diagonal(slope, block).copy_(mismatch[:, 0, block])
            # d/dz = P (1 - P) slope + (P - [same class]) entropy
            slope.mul_(1 - probs).add_(entropy).mul_(probs)
            torch.sub(slope, torch.where(same_class, entropy, 0), out=result[:, block])
        return result, None, None, None


def affinity_terms(
    prior: Tensor,
    label: Tensor,
    grid: Size,
    *,
    ignore_index: int = 255,
    ignore: str = 'class',
    degenerate: str = 'legacy',
) -> dict[str, Tensor]:
    """Terms of the loss between the prior and the affinity.

    The affinity is 1 where pixel and cell have the same class, otherwise 0. Its matrix is never
    made. ``AffinityLoss`` explains the options.

    Args:
        prior: Logits (N, K, H, W) of the prior P: K cells for each of the L = H * W pixels.
        label: Labels (N, h, w) of any size, classes or ``ignore_index``.
        grid: Rows and columns of the cells, K = rows * columns. If the grid is H x W, the pair of a
            pixel with the cell at its position does not count as a match.
        ignore_index: Label of ignored pixels.
        ignore: Treatment of ignored pixels, 'class' or 'mask'.
        degenerate: Treatment of pixels whose rate is undefined, 'legacy' or 'skip'.

    Returns:
        ``unary``, ``recall``, ``specificity`` and ``precision``: scalars, at least float32.
    """
    size = (prior.shape[2], prior.shape[3])
    aligned = size == tuple(grid)
    logits = at_least_float32(prior.flatten(2))
    pixels, cells = (class_ids(label, s, ignore_index) for s in (size, grid))
    masked = ignore == 'mask'
    counted = pixels != IGNORED if masked else torch.ones_like(pixels, dtype=torch.bool)
    if masked:
        cells = torch.where(cells == IGNORED, HIDDEN, cells)
        logits = logits.masked_fill((cells == HIDDEN)[..., None], -torch.inf)  # P = 0, no entropy
    match, mismatch, rejected, entropy = _PixelSums.apply(logits, cells, pixels, aligned)

    ranked = cells.sort(1).values
    num_matches = torch.searchsorted(ranked, pixels, right=True)
    num_matches = num_matches - torch.searchsorted(ranked, pixels)
    num_cells = (cells != HIDDEN).sum(1, keepdim=True)  # (N, 1)
    num_mismatches = num_cells - num_matches  # (N, L)
    num_matches = num_matches - 1 if aligned else num_matches
    total = match + mismatch
    rates = dict(
        recall=match / num_matches.clamp(min=1),
        specificity=rejected / num_mismatches.clamp(min=1),
        precision=match / torch.where(total == 0, 1, total),
    )
    defined = dict(
        recall=num_matches > 0, specificity=num_mismatches > 0, precision=num_matches > 0
    )
    terms = dict(unary=(entropy * counted).sum() / (counted * num_cells).sum().clamp(min=1))
    for name, rate in rates.items():
        averaged = counted & defined[name] if degenerate == 'skip' else counted
        with torch.autocast(rate.device.type, enabled=False):  # autocast refuses this function
            # clamps the logarithm at -100, with the gradient 0 where the rate is a constant 0;
            # it refuses NaN, which ``unary`` shows too
            rate = rate.nan_to_num(nan=0.0)
            minus_log = F.binary_cross_entropy(rate, torch.ones_like(rate), reduction='none')
        terms[name] = (minus_log * averaged).sum() / averaged.sum().clamp(min=1)
    return terms


@MODELS.register_module()
class AffinityLoss(nn.Module):
    """Loss of the prior: cross entropy of the pairs, recall, specificity and precision of pixels.

    This is the released form of the paper's affinity loss. It differs from the paper: the pair of a
    pixel with itself counts neither in recall nor in the numerator of precision.

    Args:
        ignore: Treatment of ignored pixels. 'class' (as released) makes them a further class, which
            trains the prior too. 'mask' omits them, as pixels and as cells.
        degenerate: Treatment of pixels without a cell of their class, or without a cell of another
            class. 'legacy' (as released) adds 100 to recall and precision, or to specificity, with
            no gradient. 'skip' averages over the other pixels.
        loss_weight: Factor of the sum.
        loss_name: Key in the log; has to contain "loss" to be trained.

    Raises:
        UserError: An option has a value that is not listed here.
    """

    def __init__(
        self,
        *,
        ignore: str = 'class',
        degenerate: str = 'legacy',
        loss_weight: float = 1.0,
        loss_name: str = 'loss_prior',
    ) -> None:
        super().__init__()
        if ignore not in ('class', 'mask') or degenerate not in ('legacy', 'skip'):
            raise UserError(
                f"AffinityLoss got ignore='{ignore}', degenerate='{degenerate}': ignore is 'class' "
                "or 'mask', degenerate is 'legacy' or 'skip'"
            )
        self.options = dict(ignore=ignore, degenerate=degenerate)
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, prior: Tensor, label: Tensor, grid: Size, ignore_index: int = 255
    ) -> dict[str, Tensor]:
        """The four terms of ``affinity_terms`` and, under ``loss_name``, their weighted sum."""
        terms = affinity_terms(prior, label, grid, ignore_index=ignore_index, **self.options)
        logged = {f'prior_{name}': term.detach() for name, term in terms.items()}
        return logged | {self.loss_name: self.loss_weight * torch.stack([*terms.values()]).sum()}
