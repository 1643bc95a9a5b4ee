"""SPNet's choice of pixels by a slow, obvious formula, and its modules as released."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmseg.models.decode_heads import PSPHead
from torch import Tensor, nn

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.losses import WeightedCELoss
from mmseg_ext.papers.spnet import MixedPooling, SPNetHead, StripConvs, StripPooling


def weighted_ce_of_hard_pixels(
    logits: Tensor,
    label: Tensor,
    class_weight: Sequence[float] | None,
    threshold: float | None,
    min_kept: int,
) -> Tensor:
    """Weighted mean cross entropy over the pixels that are kept, one pixel at a time."""
    pixels = []  # (probability of its class, its loss, its weight)
    for n, y, x in torch.cartesian_prod(*(torch.arange(size) for size in label.shape)).tolist():
        c = label[n, y, x].item()
        if 0 <= c < logits.shape[1]:
            loss = torch.logsumexp(logits[n, :, y, x], 0) - logits[n, c, y, x]
            weight = class_weight[c] if class_weight is not None else 1.0
            pixels.append((torch.exp(-loss).item(), loss, weight))
    if threshold is not None and len(pixels) > min_kept:
        threshold = max(threshold, sorted(p for p, _, _ in pixels)[min_kept - 1])
        pixels = [pixel for pixel in pixels if pixel[0] <= threshold]
    return sum(w * loss for _, loss, w in pixels) / sum(w for _, _, w in pixels)


def strips_released(convs: StripConvs, x: Tensor, **resize: Any) -> Tensor:
    """ReLU of both strips, each enlarged to the whole map first."""
    up = partial(F.interpolate, size=x.shape[2:], mode='bilinear', **resize)
    vertical = convs.vertical(F.adaptive_avg_pool2d(x, (None, 1)))
    horizontal = convs.horizontal(F.adaptive_avg_pool2d(x, (1, None)))
    return F.relu(up(vertical) + up(horizontal))


def strip_pooling_released(gate: StripPooling, x: Tensor) -> Tensor:
    """The gate, whose strips are repeated over the map and not resized."""
    vertical = gate.strips.vertical(F.adaptive_avg_pool2d(x, (None, 1))).expand_as(x)
    horizontal = gate.strips.horizontal(F.adaptive_avg_pool2d(x, (1, None))).expand_as(x)
    return x * torch.sigmoid(gate.conv_gate(F.relu(vertical + horizontal)))


def mixed_pooling_released(pooling: MixedPooling, x: Tensor) -> Tensor:
    """Two reductions, adaptive pools of every size, strips enlarged to whole maps."""
    resize = dict(align_corners=pooling.align_corners)
    short, long = pooling.reduce_short(x), pooling.reduce_long(x)
    around = pooling.local(short)
    for size, conv in zip(pooling.pool_sizes, pooling.pyramid, strict=True):
        pooled = conv(F.adaptive_avg_pool2d(short, size))
        around = around + F.interpolate(pooled, x.shape[2:], mode='bilinear', **resize)
    short = pooling.out_short(F.relu(around))
    long = pooling.out_long(strips_released(pooling.strips, long, **resize))
    return F.relu(x + pooling.fuse(torch.cat([short, long], 1)))


def head_released(head: SPNetHead, x: Tensor) -> Tensor:
    x = head.reduce(x)
    for pooling in head.mixed_pooling:
        x = mixed_pooling_released(pooling, x)
    return head.cls_seg(head.bottleneck(x))


def ohem_released(logits: Tensor, label: Tensor, threshold: float, min_kept: int) -> Tensor:
    """The hard pixels are sorted out with NumPy, on the CPU."""
    probs = logits.detach().softmax(1).cpu().numpy()
    flat = label.cpu().numpy().ravel()
    valid = flat != 255
    own = probs.transpose(1, 0, 2, 3).reshape(logits.shape[1], -1)[:, valid]
    own = own[flat[valid], np.arange(own.shape[1])]
    if own.size > min_kept:
        threshold = max(threshold, own[own.argsort()[min_kept - 1]])
        flat = flat.copy()
        flat[np.flatnonzero(valid)[own > threshold]] = 255
    kept = torch.from_numpy(flat).view_as(label).to(label.device)
    return F.cross_entropy(logits, kept, ignore_index=255)


def both_ways(form: Callable[[Tensor], Tensor], x: Tensor) -> Run:
    """The value of a form and its gradient for ``x``."""

    def run() -> list[Tensor]:
        leaf = x.detach().requires_grad_()
        y = form(leaf)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), leaf)]

    return run


def keep_active(module: nn.Module) -> None:
    """Lifts every ReLU's input: rounding near 0 would become other gradients."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.constant_(norm.bias, 10.0)


def _make_gate(device: torch.device) -> tuple[Run, Run]:
    gate, x = StripPooling(256).to(device), torch.randn(1, 256, 96, 96, device=device)
    keep_active(gate)
    return both_ways(gate, x), both_ways(lambda x: strip_pooling_released(gate, x), x)


def _make_head(device: torch.device) -> tuple[Run, Run]:
    init_default_scope('mmseg')
    head = SPNetHead(512, num_classes=19, dropout_ratio=0.0).to(device)
    keep_active(head)
    x = torch.randn(2, 512, 60, 60, device=device)
    return both_ways(lambda x: head([x]), x), both_ways(lambda x: head_released(head, x), x)


def _make_per_multiplication(device: torch.device) -> tuple[Run, Run]:
    """Three of SPNet's heads against two of the host's PSPHead, which multiply as often.

    Both read 2048 channels and classify 512; what they return is not compared. On one thread
    PyTorch runs 1x1 convolutions of small batches by another library than 3x3 ones, here at half
    their speed, which tells nothing of the heads: measure on two.
    """
    init_default_scope('mmseg')
    x = torch.randn(2, 2048, 60, 60, device=device)
    ours = SPNetHead(2048, num_classes=19).to(device)
    cross_entropy = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    theirs = PSPHead(
        in_channels=2048,
        channels=512,
        num_classes=19,
        norm_cfg=dict(type='BN'),
        loss_decode=cross_entropy,
    ).to(device)

    def run(head: nn.Module, times: int) -> Run:
        step = both_ways(lambda x: head([x]), x)

        def several() -> list[Tensor]:
            for _ in range(times):
                step()
            return []

        return several

    return run(ours, 3), run(theirs, 2)


def _make_ohem(device: torch.device) -> tuple[Run, Run]:
    logits = 2 * torch.randn(2, 19, 256, 512, device=device)
    label = torch.randint(0, 20, (2, 256, 512), device=device)
    label[label == 19] = 255
    loss = WeightedCELoss(threshold=0.7, min_kept=50_000)
    return both_ways(lambda z: loss(z, label), logits), both_ways(
        lambda z: ohem_released(z, label, 0.7, 50_000), logits
    )


BENCHMARKS = [
    OpBenchmark('spnet_gate', '256x96x96', _make_gate),
    OpBenchmark('spnet_head', '2x512x60x60', _make_head),
    OpBenchmark('spnet_ohem', '2x19x256x512', _make_ohem),
    OpBenchmark('spnet_and_psp', '3 / 2 heads, 273.3 / 272.1 GMAC', _make_per_multiplication),
]
