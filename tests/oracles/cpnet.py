"""CPNet's affinity loss and contexts: slow, obvious formulas, and released forms for measuring."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.papers.cpnet import CPNetHead, affinity_terms

Size = tuple[int, int]
TERMS = ('unary', 'recall', 'specificity', 'precision')


def label_at(label: Tensor, size: Size, ignore_index: int = 255) -> Tensor:
    """Labels (N, h, w) at ``size`` as (N, L); ignored pixels are one more class, 1000."""
    (h, w), (height, width) = label.shape[1:], size
    rows, columns = torch.arange(height) * h // height, torch.arange(width) * w // width
    small = label[:, rows][:, :, columns].flatten(1)
    return torch.where(small == ignore_index, 1000, small)


def affinity(label: Tensor, size: Size, grid: Size | None = None) -> Tensor:
    """1 where pixel and cell have one class: (N, L, cells), bool."""
    return label_at(label, size)[:, :, None] == label_at(label, grid or size)[:, None]


def affinity_terms_slow(
    prior: Tensor, label: Tensor, grid: Size, *, ignore: str = 'class', degenerate: str = 'legacy'
) -> dict[str, Tensor]:
    """The terms, one pixel at a time, of the prior's logits (N, cells, H, W)."""
    size = tuple(prior.shape[2:])
    pixels, cells = label_at(label, size), label_at(label, grid)
    lists: dict[str, list[Tensor]] = {name: [] for name in TERMS}
    for logits, ids, cell_ids in zip(prior.flatten(2).mT, pixels, cells, strict=True):
        for i, z in enumerate(logits):
            if ignore == 'mask' and ids[i] == 1000:
                continue
            same = cell_ids == ids[i]
            mates = same.clone()
            if size == grid:
                mates[i] = False
            counted = cell_ids != 1000 if ignore == 'mask' else torch.ones_like(same)
            p = z.sigmoid()
            lists['unary'] += [*F.softplus(torch.where(same, -z, z))[counted]]
            for name, top, bottom, enough in (
                ('recall', p[mates & counted], (mates & counted).sum(), mates.any()),
                ('precision', p[mates & counted], p[counted].sum(), mates.any()),
                (
                    'specificity',
                    (1 - p)[~same & counted],
                    (~same & counted).sum(),
                    (~same & counted).any(),
                ),
            ):
                if enough:
                    lists[name].append(-(top.sum() / bottom).log().clamp(min=-100))
                elif degenerate == 'legacy':
                    lists[name].append(torch.full_like(z[0], 100.0))
    nothing = prior.sum() * 0
    return {n: torch.stack(v).mean() if v else nothing for n, v in lists.items()}


def affinity_loss_released(
    prior: Tensor, label: Tensor, num_classes: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its terms with the released form's costs, of logits (N, cells, H, W).

    The affinity as a product of one-hot labels, kept as floats beside its version without a
    diagonal, and every step of the terms as a matrix of all pairs.
    """
    size = prior.shape[2:]
    probs = prior.flatten(2).mT.sigmoid()  # (N, L, cells)
    ids = F.interpolate(label[:, None].float(), size, mode='nearest').squeeze(1).long()
    ids = torch.where(ids == 255, num_classes, ids)
    one_hot = F.one_hot(ids, num_classes + 1).flatten(1, 2).float()
    target = one_hot @ one_hot.mT
    off_diagonal = target * (1 - torch.eye(target.shape[1], device=target.device))

    def minus_log(top: Tensor, bottom: Tensor) -> Tensor:
        rate = top / torch.where(bottom > 0, bottom, torch.ones_like(bottom))
        return F.binary_cross_entropy(rate, torch.ones_like(rate))

    terms = dict(
        unary=F.binary_cross_entropy(probs, target),
        recall=minus_log((probs * off_diagonal).sum(2), off_diagonal.sum(2)),
        specificity=minus_log(((1 - probs) * (1 - target)).sum(2), (1 - target).sum(2)),
        precision=minus_log((probs * off_diagonal).sum(2), probs.sum(2)),
    )
    return sum(terms.values(), torch.zeros_like(terms['unary'])), terms


def contexts_released(head: nn.Module, values: Tensor) -> tuple[Tensor, Tensor]:
    """Both contexts of features (N, C, H, W) of the prior's size, each by a product of its own."""
    n, c, h, w = values.shape
    probs = head.prior_conv(values).flatten(2).mT.sigmoid()  # (N, L, cells)
    rows = values.flatten(2).mT  # (N, L, C)
    intra, inter = (p @ rows / rows.shape[1] for p in (probs, 1 - probs))
    return intra.mT.reshape(n, c, h, w), inter.mT.reshape(n, c, h, w)


def _make_contexts(device: torch.device) -> tuple[Run, Run]:
    head = CPNetHead(in_channels=8, num_classes=19).eval().to(device)
    values = torch.rand(1, 512, 64, 64, device=device)

    def ours() -> list[Tensor]:
        with torch.no_grad():
            return [*head.contexts(values)[:2]]

    def released() -> list[Tensor]:
        with torch.no_grad():
            return [*contexts_released(head, values)]

    return ours, released


def _make_affinity(device: torch.device) -> tuple[Run, Run]:
    prior = torch.randn(2, 3600, 60, 60, device=device)
    blocks = torch.randint(0, 20, (2, 15, 15), device=device)
    label = blocks.repeat_interleave(32, 1).repeat_interleave(32, 2)  # 480 x 480, stride 8
    label[label == 19] = 255

    def ours(leaf: Tensor) -> Tensor:
        return torch.stack([*affinity_terms(leaf, label, (60, 60)).values()]).sum()

    def released(leaf: Tensor) -> Tensor:
        return affinity_loss_released(leaf, label, 19)[0]

    def run(loss: Callable[[Tensor], Tensor]) -> Run:
        def both_ways() -> list[Tensor]:
            leaf = prior.detach().requires_grad_()
            value = loss(leaf)
            return [value.detach(), *torch.autograd.grad(value, leaf)]

        return both_ways

    return run(ours), run(released)


BENCHMARKS = [
    OpBenchmark('affinity', '2x3600x3600', _make_affinity),
    OpBenchmark('cpnet_contexts', '1x512x64x64', _make_contexts),
]
