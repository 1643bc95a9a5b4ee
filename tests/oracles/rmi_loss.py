"""RMI + BCE: the slow, obvious formula, and the released form for measuring."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.losses import RMILoss

RIDGE = 5e-4


def _downsample(one_hot: Tensor, probs: Tensor, pool: str, stride: int) -> tuple[Tensor, Tensor]:
    if stride == 1:
        return one_hot, probs
    if pool == 'interp':
        size = one_hot.shape[2] // stride, one_hot.shape[3] // stride
        return (
            F.interpolate(one_hot, size, mode='nearest'),
            F.interpolate(probs, size, mode='bilinear', align_corners=True),
        )
    pooling = {'avg': F.avg_pool2d, 'max': F.max_pool2d}[pool]
    one_hot, probs = (pooling(x, stride, stride, stride // 2) for x in (one_hot, probs))
    return one_hot, probs


def rmi_parts(
    logits: Tensor, label: Tensor, radius: int = 3, pool: str = 'avg', pool_stride: int = 4
) -> tuple[Tensor, Tensor]:
    """BCE and RMI in float64, one sample and class at a time."""
    logits = logits.double()
    n, k = logits.shape[:2]
    valid = (label >= 0) & (label < k)
    one_hot = torch.stack([label == c for c in range(k)], 1).double()

    elements = F.binary_cross_entropy_with_logits(logits, one_hot, reduction='none')
    bce = elements[valid[:, None].expand_as(elements)].sum() / (valid.sum() + 1)

    target, probs = _downsample(
        one_hot, logits.sigmoid() * valid[:, None] + 1e-6, pool, pool_stride
    )
    h, w = (size - radius + 1 for size in target.shape[2:])
    shifts = [(i, j) for i in range(radius) for j in range(radius)]
    eye = torch.eye(radius**2, dtype=torch.float64)
    rmi = logits.new_zeros(())
    for sample in range(n):
        for c in range(k):
            t, p = (
                torch.stack([x[sample, c, i : i + h, j : j + w].flatten() for i, j in shifts])
                for x in (target, probs)
            )
            t, p = (x - x.mean(1, keepdim=True) for x in (t, p))
            left = t @ t.T - t @ p.T @ torch.inverse(p @ p.T + RIDGE * eye) @ p @ t.T
            rmi = rmi + 0.5 * torch.logdet(left + RIDGE * eye) / radius**2 / n
    return bce, rmi


def rmi_loss_released(logits: Tensor, label: Tensor) -> Tensor:
    """The default loss with the released form's costs.

    Int64 one-hot labels and float copies, all patches of both maps in float64 kept for backward, an
    explicit inverse. Where the order of operations is open, the cheaper one.
    """
    k, radius, stride = logits.shape[1], 3, 4
    valid = label < k
    one_hot = F.one_hot(torch.where(valid, label, 0), k)  # (N, H, W, K) int64
    one_hot = one_hot.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    mask = valid[:, None].float()
    one_hot = one_hot * mask

    elements = F.binary_cross_entropy_with_logits(logits, one_hot, weight=mask, reduction='sum')
    bce = elements / (valid.sum() + 1)

    target, probs = _downsample(one_hot, logits.sigmoid() * mask + 1e-6, 'avg', stride)
    h, w = (size - radius + 1 for size in target.shape[2:])
    shifts = [(i, j) for i in range(radius) for j in range(radius)]
    t, p = (
        torch.stack([x[..., i : i + h, j : j + w] for i, j in shifts], 2).flatten(3).double()
        for x in (target, probs)
    )  # (N, K, r*r, M)
    t, p = (x - x.mean(3, keepdim=True) for x in (t, p))
    ridge = RIDGE * torch.eye(radius**2, dtype=t.dtype, device=t.device)
    cross = t @ p.mT
    left = t @ t.mT - cross @ torch.inverse(p @ p.mT + ridge) @ cross.mT
    factor = torch.linalg.cholesky(left + ridge)
    half_logdet = (factor.diagonal(dim1=-2, dim2=-1) + 1e-8).log().sum(-1)
    rmi = (half_logdet.float().mean(0) / radius**2).sum()
    return 0.5 * bce + 0.5 * rmi


def _make(device: torch.device) -> tuple[Run, Run]:
    logits = 2 * torch.randn(1, 19, 512, 1024, device=device)
    blocks = torch.randint(0, 20, (1, 16, 32), device=device)
    label = blocks.repeat_interleave(32, 1).repeat_interleave(32, 2)
    label[label == 19] = 255

    def step(loss: Callable[[Tensor, Tensor], Tensor]) -> Run:
        def run() -> tuple[Tensor, Tensor]:
            leaf = logits.detach().requires_grad_()
            value = loss(leaf, label)
            return value.detach(), *torch.autograd.grad(value, leaf)

        return run

    return step(RMILoss()), step(rmi_loss_released)


BENCHMARKS = [OpBenchmark('rmi', '19x512x1024', _make)]
