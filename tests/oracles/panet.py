"""PANet by the obvious formulas, and in the form of its released code, for values and ratios."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.papers.panet import AdaptiveFeaturePooling, PANetBoxHead, PANetMaskHead
from mmseg_ext.papers.panet.pooling import fuse_levels


def bilinear(features: Tensor, y: float, x: float) -> Tensor:
    """Sample (C,) of (C, H, W) at the cell (y, x), by RoIAlign's rule at the edges."""
    height, width = features.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0 * features[:, 0, 0]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = (1 - dx) * features[:, top, left] + dx * features[:, top, right]
    lower = (1 - dx) * features[:, below, left] + dx * features[:, below, right]
    return (1 - dy) * upper + dy * lower


def roi_align_slow(
    features: Tensor, rois: Tensor, size: int, stride: float, sampling_ratio: int
) -> Tensor:
    result = torch.zeros(len(rois), features.shape[1], size, size)
    for m, roi in enumerate(rois.tolist()):
        image = features[int(roi[0])]
        x1, y1, x2, y2 = (value / stride for value in roi[1:])
        bins = max(y2 - y1, 1) / size, max(x2 - x1, 1) / size
        counts = [sampling_ratio or math.ceil(length) for length in bins]
        for i in range(size):
            for j in range(size):
                samples = [
                    bilinear(
                        image,
                        y1 + (i + (k + 0.5) / counts[0]) * bins[0],
                        x1 + (j + (n + 0.5) / counts[1]) * bins[1],
                    )
                    for k in range(counts[0])
                    for n in range(counts[1])
                ]
                result[m, :, i, j] = torch.stack(samples).mean(0)
    return result


def neck_slow(neck: nn.Module, levels: Sequence[Tensor]) -> list[Tensor]:
    """The released flow, level by level."""
    inner = neck.lateral_convs[-1](levels[-1])
    outputs = {len(levels) - 1: neck.fpn_convs[-1](inner)}
    for i in reversed(range(len(levels) - 1)):
        inner = neck.lateral_convs[i](levels[i]) + F.interpolate(inner, scale_factor=2.0)
        outputs[i] = neck.fpn_convs[i](inner)
    results = [outputs[0]]
    for i in range(1, len(levels)):
        down, last = neck.downsample_convs[i - 1], neck.pafpn_convs[i - 1]
        moved = F.relu(down.gn(down.conv(results[-1])))
        results.append(F.relu(last.gn(last.conv(moved + outputs[i]))))
    return [*results, F.max_pool2d(results[-1], 1, stride=2)]


def fusion_released(layers: nn.ModuleList, grids: Sequence[Tensor]) -> Tensor:
    """The maximum of the results of all levels, which are kept."""
    results = [layer(grid) for layer, grid in zip(layers, list(grids), strict=True)]
    return torch.stack(results).amax(0)


def iou_slow(box: Sequence[float], other: Sequence[float]) -> float:
    """IoU of two boxes that end at their last pixel."""
    w = min(box[2], other[2]) - max(box[0], other[0]) + 1
    h = min(box[3], other[3]) - max(box[1], other[1]) + 1
    common = max(w, 0) * max(h, 0)
    area = sum((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other))
    return common / (area - common)


def nms_slow(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> list[int]:
    inclusive = (boxes - torch.tensor([0, 0, 1, 1])).tolist()
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        rivals = [k for k in kept if groups[k] == groups[i]]
        if all(iou_slow(inclusive[i], inclusive[k]) <= threshold for k in rivals):
            kept.append(i)
    return kept


def encode_released(boxes: Tensor, targets: Tensor, weights: Sequence[float]) -> Tensor:
    """Deltas of boxes that end at their last pixel, with widths x2 - x1 + 1."""
    columns = []
    sizes = [[b[:, i + 2] - b[:, i] + 1 for b in (boxes, targets)] for i in (0, 1)]
    for i in (0, 1):
        size, target = sizes[i]
        centre, goal = boxes[:, i] + 0.5 * size, targets[:, i] + 0.5 * target
        columns.append(weights[i] * (goal - centre) / size)
    columns += [weights[i + 2] * torch.log(sizes[i][1] / sizes[i][0]) for i in (0, 1)]
    return torch.stack(columns, 1)


def mask_loss_released(
    head: PANetMaskHead, grids: Sequence[Tensor], labels: Tensor, target: Tensor
) -> Tensor:
    """The loss of all classes, of which those that are not the label's have the weight 0."""
    logits = head(grids)
    everywhere = torch.full_like(logits, -1)
    everywhere[torch.arange(len(labels)), labels] = target
    weight = (everywhere > -1).to(logits)
    loss = F.binary_cross_entropy_with_logits(logits, everywhere, weight, reduction='sum')
    return loss / weight.sum()


def paste_slow(mask: Tensor, box: Sequence[float], size: tuple[int, int]) -> Tensor:
    """Probabilities (H, W) of a mask (R, R) in its box, pixel by pixel."""
    x1, y1, x2, y2 = box
    result = torch.zeros(size)
    cells = len(mask)
    padded = F.pad(mask, (1, 1, 1, 1))
    for row in range(size[0]):
        for column in range(size[1]):
            x = (column + 0.5 - x1) / (x2 - x1) * cells + 0.5  # of the padded mask
            y = (row + 0.5 - y1) / (y2 - y1) * cells + 0.5
            if 0 <= x < cells + 1 and 0 <= y < cells + 1:
                result[row, column] = bilinear(padded[None], y, x)[0]
    return result


def _levels(device: torch.device, channels: int) -> list[Tensor]:
    sizes = [(512 // s, 1024 // s) for s in (4, 8, 16, 32)]
    return [torch.randn(1, channels, *size, device=device) for size in sizes]


def _rois(device: torch.device, count: int) -> Tensor:
    corner = torch.rand(count, 2, device=device) * torch.tensor([700.0, 300.0], device=device)
    extent = torch.rand(count, 2, device=device) * 200 + 10
    return torch.cat([torch.zeros(count, 1, device=device), corner, corner + extent], 1)


def make_fusion(device: torch.device) -> tuple[Run, Run]:
    """First layers of the box head on 256 regions, in a prediction."""
    head = PANetBoxHead(in_channels=256, num_classes=80, fc_channels=32).to(device)
    pooling, levels, rois = AdaptiveFeaturePooling(), _levels(device, 256), _rois(device, 256)

    def ours() -> list[Tensor]:
        with torch.no_grad():
            return [fuse_levels(head.levels, pooling(levels, rois, 7), 'max')]

    def released() -> list[Tensor]:
        with torch.no_grad():
            return [fusion_released(head.levels, list(pooling(levels, rois, 7)))]

    return ours, released


def make_fusion_step(device: torch.device) -> tuple[Run, Run]:
    """The same forward and backward on 64 regions."""
    head = PANetBoxHead(in_channels=256, num_classes=80, fc_channels=32).to(device)
    pooling, rois = AdaptiveFeaturePooling(), _rois(device, 64)
    levels = [level.requires_grad_() for level in _levels(device, 256)]
    weight = torch.randn(64, 256, 7, 7, device=device)

    def gradients(fused: Tensor) -> list[Tensor]:
        return [fused.detach(), *torch.autograd.grad((fused * weight).sum(), levels)]

    def ours() -> list[Tensor]:
        return gradients(fuse_levels(head.levels, pooling(levels, rois, 7), 'max'))

    def released() -> list[Tensor]:
        return gradients(fusion_released(head.levels, list(pooling(levels, rois, 7))))

    return ours, released


def make_masks(device: torch.device) -> tuple[Run, Run]:
    """Loss of the masks of 64 regions and 80 classes behind the shared layers."""
    head = PANetMaskHead(in_channels=256, num_classes=80, num_levels=1, channels=64).to(device)
    grids = [torch.randn(64, 256, 14, 14, device=device, requires_grad=True)]
    labels = torch.randint(80, (64,), device=device)
    target = (torch.rand(64, 28, 28, device=device) > 0.5).float()

    def gradients(loss: Tensor) -> list[Tensor]:
        inputs = [*grids, head.classify.weight, head.classify.bias]
        return [loss.detach(), *torch.autograd.grad(loss, inputs)]

    def ours() -> list[Tensor]:
        logits = head.logits_of(grids, labels)
        return gradients(F.binary_cross_entropy_with_logits(logits, target))

    def released() -> list[Tensor]:
        return gradients(mask_loss_released(head, grids, labels, target))

    return ours, released


BENCHMARKS = [
    OpBenchmark('panet_fusion', '256 regions of 512x1024, 256 channels', make_fusion),
    OpBenchmark('panet_fusion_step', '64 regions, forward and backward', make_fusion_step),
    OpBenchmark('panet_masks', '64 regions, 80 classes, forward and backward', make_masks),
]
