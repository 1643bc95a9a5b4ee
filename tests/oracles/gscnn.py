"""Gated-SCNN's edges and losses by their formulas, and in the released forms for measuring."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.evaluation.boundary_f_score import borders, boundary_f_scores
from mmseg_ext.losses import DualTaskLoss, ImageWeightedCELoss
from mmseg_ext.papers.gscnn import BalancedEdgeLoss, class_edges
from mmseg_ext.papers.gscnn.head import GatedConv, GSCNNHead

CLASSES = 19
IGNORED = 255


def class_edges_released(
    label: Tensor, num_classes: int, *, radius: int = 2, skip_class0: bool = False
) -> Tensor:
    """Two distance transforms for each image and class, (N, H, W) to bool."""
    edges = np.zeros(label.shape, bool)
    for image, found in zip(label.cpu().numpy(), edges, strict=True):
        for i in range(int(skip_class0), num_classes):
            mask = np.pad(image == i, 1)
            if mask.any():
                distance = distance_transform_edt(mask) + distance_transform_edt(~mask)
                found |= (distance <= radius)[1:-1, 1:-1]
    return torch.from_numpy(edges).to(label.device)


def class_weights_released(label: np.ndarray, num_classes: int) -> np.ndarray:
    """(K,), from the histogram of one image's labels."""
    counts, _ = np.histogram(label, range(num_classes + 1))
    counts[-1] -= (label == num_classes).sum()  # the last bin holds its upper end
    share = counts / max(counts.sum(), 1)
    return np.where(share > 0, 1 + (1 - share), 1)


def image_weighted_ce_released(logits: Tensor, label: Tensor) -> Tensor:
    """Image after image, its labels counted on the CPU; 0 for one without."""
    total = logits.sum() * 0
    for i in range(len(logits)):
        weights = class_weights_released(label[i].cpu().numpy(), logits.shape[1])
        weight = torch.from_numpy(weights).to(logits)
        loss = F.nll_loss(
            F.log_softmax(logits[i : i + 1], dim=1),
            label[i : i + 1].long(),
            weight,
            ignore_index=IGNORED,
        )
        total = total + (loss if (label[i] != IGNORED).any() else 0)
    return total


def edge_loss_released(edge: Tensor, target: Tensor) -> Tensor:
    """Weights of the pixels made by numpy; a sigmoid of what is one."""
    wanted = target.cpu().numpy()
    positive, negative = wanted == 1, wanted == 0
    weight = np.zeros(wanted.shape)
    weight[positive] = negative.sum() / (positive.sum() + negative.sum())
    weight[negative] = positive.sum() / (positive.sum() + negative.sum())
    pixels = torch.from_numpy(weight).to(edge)
    return 20 * F.binary_cross_entropy_with_logits(edge, target.to(edge), pixels)


def dual_task_released(logits: Tensor, label: Tensor, uniform: Tensor) -> Tensor:
    """Both magnitudes, both masks and the difference, each as a map of all classes."""
    n, k, h, w = logits.shape
    ignored = label == IGNORED
    logits = torch.where(ignored[:, None], torch.zeros_like(logits), logits).view(n, k, -1)
    one_hot = F.one_hot(label.long().masked_fill(ignored, 0), k).permute(0, 3, 1, 2).float()
    noise = -torch.log(1e-10 - torch.log(uniform + 1e-10))
    probs = F.softmax((logits + noise) / 0.5, dim=1).view(n, k, h, w)
    found, wanted = (torch.sqrt(torch.pow(x, 2) + torch.pow(x, 2) + 1e-6) for x in (probs, one_hot))
    found, wanted = found / found.max(), wanted / wanted.max()
    gap = torch.abs(found - wanted)
    masks = [(x >= 1e-8).float() for x in (found, wanted)]
    return sum(0.5 * (gap * mask).sum() / (mask.sum() + 1e-10) for mask in masks)


def dual_task_by_hand(probs: Tensor, one_hot: Tensor, valid: Tensor) -> Tensor:
    """The paper's form, pixel by pixel: maps (K, H, W), and where they count, (H, W)."""
    strengths = [strength_by_hand(x * valid) for x in (probs, one_hot)]
    found, wanted = (x / x.max() for x in strengths)
    return (found - wanted).abs()[:, valid].mean()


def strength_by_hand(x: Tensor) -> Tensor:
    k, h, w = x.shape

    def mirror(i: int, length: int) -> int:
        while not 0 <= i < length:
            i = -1 - i if i < 0 else 2 * length - 1 - i
        return i

    def filtered(c: int, i: int, j: int) -> Tensor:
        reach = range(-4, 5)
        terms = [
            (5 - abs(a)) * (5 - abs(b)) * x[c, mirror(i + a, h), mirror(j + b, w)]
            for a in reach
            for b in reach
        ]
        return torch.stack(terms).sum() / 25**2

    smooth = torch.stack([filtered(c, i, j) for c in range(k) for i in range(h) for j in range(w)])
    smooth = F.pad(smooth.view(k, h, w), (1, 1, 1, 1))
    gx = (smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]) / 2
    gy = (smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]) / 2
    return (gx**2 + gy**2 + 1e-6).sqrt()


def boundary_f_by_hand(
    pred: np.ndarray, label: np.ndarray, radius: int, ignore_index: int = IGNORED
) -> float:
    """Score of the class 1, pixel by pixel; 1 without a border in both."""
    h, w = pred.shape

    def border(values: np.ndarray) -> set[tuple[int, int]]:
        mask = (values == 1) & (label != ignore_index)
        near = ((0, 1), (1, 0), (1, 1))
        return {
            (i, j)
            for i in range(h)
            for j in range(w)
            if any(mask[min(i + a, h - 1), min(j + b, w - 1)] != mask[i, j] for a, b in near)
        }

    def share(some: set, others: set) -> float:
        close = [any((i - a) ** 2 + (j - b) ** 2 <= radius**2 for a, b in others) for i, j in some]
        return sum(close) / len(close) if close else 1.0

    found, wanted = border(pred), border(label)
    if not found and not wanted:
        return 1.0
    precision, recall = share(found, wanted), share(wanted, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def gate_released(gated: nn.Module, x: Tensor, side: Tensor) -> Tensor:
    """A gate of features and one channel more, concatenated."""
    joined = torch.cat([x, side], dim=1)
    norms = gated.norm_features, gated.norm_side
    stats = [
        torch.cat([getattr(norm, name) for norm in norms])
        for name in ('running_mean', 'running_var', 'weight', 'bias')
    ]
    joined = F.batch_norm(joined, *stats, training=gated.training)
    weight = torch.cat([gated.mix_features.weight, gated.mix_side.weight], dim=1)
    mixed = F.relu(F.conv2d(joined, weight, gated.mix_features.bias))
    return torch.sigmoid(gated.norm_gate(gated.squeeze(mixed)))


def head_released(head: GSCNNHead, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The head in which all is resized, also to its own size, and concatenated."""
    first, fine, *deeper = inputs[:-1]
    canny = inputs[-1]
    size = canny.shape[2:]

    def enlarge(x: Tensor) -> Tensor:
        return F.interpolate(x, size=size, mode='bilinear', align_corners=True)

    stream = head.shape
    sides = [enlarge(side(level)) for side, level in zip(stream.sides, deeper, strict=True)]
    x = enlarge(first)
    for block, narrow, gated, side in zip(
        stream.blocks, stream.narrow, stream.gated, sides, strict=True
    ):
        x = narrow(enlarge(block(x)))
        x = gated.conv(x * (gate_released(gated, x, side) + 1))
    edge = enlarge(stream.conv_edge(x))
    attention = torch.sigmoid(head.conv_attention(torch.cat([edge.sigmoid(), canny], dim=1)))
    level = deeper[-1]
    branches = list(head.pyramid.branches(level, attention))
    branches[0] = F.interpolate(
        branches[0], size=level.shape[2:], mode='bilinear', align_corners=True
    )
    pyramid = head.bottleneck(torch.cat(branches, dim=1))
    low = head.fine(fine)
    high = F.interpolate(pyramid, size=low.shape[2:], mode='bilinear', align_corners=True)
    joined = torch.cat([low, high], dim=1)
    return head.conv_seg(head.decoder[1](head.decoder[0](joined))), edge


def _labels(size: tuple[int, int], device: torch.device) -> Tensor:
    """Two labels (2, *size) of blocks of classes, with ignored ones."""
    blocks = torch.randint(CLASSES + 1, (2, size[0] // 32, size[1] // 32), device=device)
    blocks = blocks.repeat_interleave(32, 1).repeat_interleave(32, 2)
    return torch.where(blocks == CLASSES, IGNORED, blocks)


def _make_edges(device: torch.device) -> tuple[Run, Run]:
    label = _labels((512, 1024), device)
    return (
        lambda: [class_edges(label, CLASSES).float()],
        lambda: [class_edges_released(label, CLASSES).float()],
    )


def _make_loss(with_edges: bool) -> Callable[[torch.device], tuple[Run, Run]]:
    def make(device: torch.device) -> tuple[Run, Run]:
        label = _labels((256, 512), device)
        leaves = [
            torch.randn(2, channels, *label.shape[1:], device=device).requires_grad_()
            for channels in (CLASSES, 1)
        ]
        uniform = torch.rand(2, CLASSES, label[0].numel(), device=device)
        known = class_edges(label, CLASSES)
        by_image = ImageWeightedCELoss(reduction='sum')
        of_edges = BalancedEdgeLoss(double_sigmoid=True)
        dual = DualTaskLoss(temperature=0.5, spatial_grad=False)

        def both_ways(losses: Sequence[Tensor]) -> list[Tensor]:
            return [*(x.detach() for x in losses), *torch.autograd.grad(sum(losses), leaves)]

        def attended(edge: Tensor) -> Tensor:
            return torch.where(edge.detach()[:, 0].sigmoid() > 0.8, label, IGNORED)

        def ours() -> list[Tensor]:
            logits, edge = leaves
            target = class_edges(label, CLASSES) if with_edges else known
            return both_ways(
                [
                    by_image(logits, label),
                    of_edges(edge, target[:, None]),
                    by_image(logits, attended(edge)),
                    dual(logits, label, uniform=uniform),
                ]
            )

        def released() -> list[Tensor]:
            logits, edge = leaves
            target = class_edges_released(label, CLASSES) if with_edges else known
            return both_ways(
                [
                    image_weighted_ce_released(logits, label),
                    edge_loss_released(edge.sigmoid(), target[:, None].float()),
                    image_weighted_ce_released(logits, attended(edge)),
                    dual_task_released(logits, label, uniform),
                ]
            )

        return ours, released

    return make


def boundary_f_released(pred: Tensor, label: Tensor, radii: Sequence[int]) -> Tensor:
    """(T, K): both borders of every class dilated by a disk for each radius."""
    scores = np.ones((len(radii), CLASSES))
    valid = (label != IGNORED).cpu().numpy()
    for i in range(CLASSES):
        edges = [borders((x == i).cpu().numpy(), 1, valid) > 0 for x in (pred, label)]
        counts = [edge.sum() for edge in edges]
        for t, radius in enumerate(radii):
            reach = np.arange(-radius, radius + 1)
            disk = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.uint8)
            near = [cv2.dilate(edge.astype(np.uint8), disk) > 0 for edge in edges]
            hits = [(edges[j] & near[1 - j]).sum() / max(counts[j], 1) for j in (0, 1)]
            shares = [hit if count else 1.0 for hit, count in zip(hits, counts, strict=True)]
            scores[t, i] = 2 * shares[0] * shares[1] / (sum(shares) or 1)
    return torch.from_numpy(scores)


def _make_scores(device: torch.device) -> tuple[Run, Run]:
    radii = (3, 5, 9, 12)
    label = _labels((512, 1024), device)[0]
    pred = torch.roll(label, (2, -2), (0, 1)) % CLASSES  # near, but where labels are ignored
    label = torch.where(torch.rand(512, 1024, device=device) < 0.01, IGNORED, label)

    def ours() -> list[Tensor]:
        arrays = pred.cpu().numpy(), label.cpu().numpy()
        scores = boundary_f_scores(*arrays, CLASSES, radii, IGNORED)
        return [torch.from_numpy(np.nan_to_num(scores, nan=1.0))]

    return ours, lambda: [boundary_f_released(pred, label, radii)]


def _make_head(device: torch.device) -> tuple[Run, Run]:
    size = (288, 576)
    widths = [64, 128, 256, 512, 512]  # the last is narrower than the released one
    head = GSCNNHead(in_channels=widths, num_classes=CLASSES).eval().to(device)
    levels = [
        torch.randn(1, width, size[0] // stride, size[1] // stride, device=device)
        for width, stride in zip(widths, (1, 2, 4, 8, 8), strict=True)
    ]
    levels.append((torch.rand(1, 1, *size, device=device) > 0.9).float())

    def ours() -> list[Tensor]:
        with torch.no_grad():
            return list(head.run(levels))

    def released() -> list[Tensor]:
        with torch.no_grad():
            return list(head_released(head, levels))

    return ours, released


def _make_gate(device: torch.device) -> tuple[Run, Run]:
    """A gate and its convolution in training, forward and backward."""
    gated = GatedConv(64, 64, norm_cfg=dict(type='BN')).train().to(device)
    x = torch.randn(2, 64, 180, 240, device=device).requires_grad_()
    side = torch.randn(2, 1, 180, 240, device=device).requires_grad_()
    wanted = [x, side, gated.mix_features.weight, gated.mix_side.weight, gated.conv.weight]

    def step(run: Callable[[], Tensor]) -> Run:
        def both_ways() -> list[Tensor]:
            out = run()
            return [out.detach(), *torch.autograd.grad(out.square().mean(), wanted)]

        return both_ways

    def released() -> Tensor:
        return gated.conv(x * (gate_released(gated, x, side) + 1))

    return step(lambda: gated(x, gated.gate(x, side))), step(released)


BENCHMARKS = [
    OpBenchmark('boundary_f_score', '512x1024, K=19, 4 radii, 2 pixels off', _make_scores),
    OpBenchmark('gscnn', '288x576, 512 channels last, K=19', _make_head),
    OpBenchmark('gscnn_edges', '2 labels of 512x1024, K=19', _make_edges),
    OpBenchmark('gscnn_gate', '2x64x180x240, training', _make_gate),
    OpBenchmark('gscnn_loss', '2 labels of 256x512, K=19', _make_loss(with_edges=True)),
    OpBenchmark('gscnn_terms', 'the same, edges given', _make_loss(with_edges=False)),
]
