"""DSRL's feature affinity with all its matrices, as the formula and for measuring."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.papers.dsrl import FeatureAffinityLoss

SIZE = (512, 1024)  # of the image


def affinity_released(seg: Tensor, sr: Tensor, p: float = 2, q: int = 1) -> Tensor:
    """Both P x P matrices, their difference and its size, averaged; for (N, C, h, w)."""
    a, b = (F.normalize(x.flatten(2), p=p, dim=1) for x in (seg, sr))
    gap = a.mT @ a - b.mT @ b
    return (gap.abs() if q == 1 else gap.square()).mean()


def affinity_one_by_one(seg: Tensor, sr: Tensor, q: int = 1) -> float:
    """The same of one image, pair by pair."""
    a, b = (list((x / x.norm(dim=0).clamp(min=1e-12)).T) for x in (seg.flatten(1), sr.flatten(1)))
    pairs = [(i, j) for i in range(len(a)) for j in range(len(a))]
    return sum(abs(float(a[i] @ a[j] - b[i] @ b[j])) ** q for i, j in pairs) / len(pairs)


def _make(channels: int, q: int) -> Callable[[torch.device], tuple[Run, Run]]:
    def make(device: torch.device) -> tuple[Run, Run]:
        height, width = SIZE[0] // 8, SIZE[1] // 8
        maps = [torch.randn(1, channels, height, width, device=device) for _ in range(2)]

        def step(loss: Callable[[Tensor, Tensor], Tensor]) -> Run:
            def run() -> list[Tensor]:
                leaves = [x.detach().requires_grad_() for x in maps]
                value = loss(*leaves)
                return [value.detach(), *torch.autograd.grad(value, leaves)]

            return run

        ours = FeatureAffinityLoss(q=q)
        return step(lambda a, b: ours(a, b, SIZE)), step(lambda a, b: affinity_released(a, b, q=q))

    return make


BENCHMARKS = [
    OpBenchmark('feature_affinity', '32 channels of 512x1024, q = 1', _make(32, 1)),
    OpBenchmark('feature_gram', '32 channels of 512x1024, q = 2', _make(32, 2)),
]
