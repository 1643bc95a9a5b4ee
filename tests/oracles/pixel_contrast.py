"""Pixel contrast: the slow, obvious formulas, and the released forms for measuring."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.papers.pixel_contrast import MemoryBank, PixelContrastLoss
from mmseg_ext.papers.pixel_contrast.head import Projection
from mmseg_ext.papers.pixel_contrast.sampling import pixels_at

TAU, TAU_0 = 0.1, 0.07
CONFIGS = Path(__file__).parents[2] / 'configs'


# The slow, obvious formulas


def infonce(
    anchors: Tensor,
    classes: Sequence[int],
    rows: Tensor,
    row_classes: Sequence[int],
    tau: float = TAU,
    tau_0: float = TAU_0,
    *,
    skip_itself: bool = False,
) -> Tensor:
    """One anchor and one positive at a time; ``skip_itself``: the rows are the anchors."""
    terms = []
    for i, (a, c) in enumerate(zip(anchors, classes, strict=True)):
        others = [j for j in range(len(rows)) if not (skip_itself and j == i)]
        positives = [j for j in others if row_classes[j] == c]
        negatives = [torch.dot(a, rows[j]) / tau for j in others if row_classes[j] != c]
        if not positives:
            continue
        total = a.new_zeros(())
        for j in positives:
            s = torch.dot(a, rows[j]) / tau
            total = total - s + torch.logsumexp(torch.stack([s, *negatives]), 0)
        terms.append(tau / tau_0 * total / len(positives))
    return torch.stack(terms).mean() if terms else 0 * anchors.sum()


def quotas(easy: int, hard: int, views: int) -> tuple[int, int]:
    """How many easy and hard views a class of an image gives, for more than one view."""
    if 2 * easy >= views and 2 * hard >= views:
        return views - views // 2, views // 2
    return (views - hard, hard) if 2 * easy >= views else (easy, views - easy)


def groups_of(
    label: Tensor, prediction: Tensor, num_classes: int, max_samples: int, max_views: int
) -> dict[tuple[int, int], tuple[int, int]]:
    """(easy, hard) views by (image, class), in their order."""
    counts = {}
    for image in range(len(label)):
        for c in range(num_classes):
            own = label[image] == c
            hard = int((own & (prediction[image] != c)).sum())
            easy = int(own.sum()) - hard
            if easy + hard > max_views:
                counts[image, c] = easy, hard
    if not counts:
        return {}
    views = max(1, min(max_views, max_samples // len(counts)))
    kept = list(counts)[:max_samples]
    return {group: quotas(*counts[group], views) for group in kept}


class Queue:
    """One queue of one class, as a list that goes round."""

    def __init__(self, size: int) -> None:
        self.rows: list[Tensor | None] = [None] * size
        self.pointer = self.count = 0

    def add(self, row: Tensor) -> None:
        self.rows[self.pointer] = row
        self.pointer = (self.pointer + 1) % len(self.rows)
        self.count = min(self.count + 1, len(self.rows))


# The released forms


def infonce_memory_released(
    anchors: Tensor, classes: Tensor, queues: Tensor, tau: float = TAU, tau_0: float = TAU_0
) -> Tensor:
    """The released value against a bank (K, R, D), its defects included.

    Class 0 is left out and as many zero rows labelled 0 stay at the end; place i of the flattened
    bank is no positive of anchor i. Every step is a matrix of its own over all anchors and rows.
    """
    k, r, d = queues.shape
    rows = anchors.new_zeros(k * r, d)
    row_classes = torch.zeros(k * r, dtype=torch.long, device=anchors.device)
    for c in range(1, k):
        rows[(c - 1) * r : c * r] = queues[c]
        row_classes[(c - 1) * r : c * r] = c
    return _dense(anchors, classes, rows, row_classes, tau, tau_0, mask_diagonal=True)


def infonce_memory_dense(
    anchors: Tensor, classes: Tensor, queues: Tensor, tau: float = TAU, tau_0: float = TAU_0
) -> Tensor:
    """The right value against a full bank (K, R, D), at the released form's costs."""
    k, r, _ = queues.shape
    rows = torch.cat([queues[c] for c in range(k)])
    row_classes = torch.arange(k, device=anchors.device).repeat_interleave(r)
    return _dense(anchors, classes, rows, row_classes, tau, tau_0, mask_diagonal=False)


def _dense(
    anchors: Tensor,
    classes: Tensor,
    rows: Tensor,
    row_classes: Tensor,
    tau: float,
    tau_0: float,
    *,
    mask_diagonal: bool,
) -> Tensor:
    mask = (classes[:, None] == row_classes).float()
    dot = torch.matmul(anchors, rows.T) / tau
    logits = dot - dot.max(dim=1, keepdim=True)[0].detach()
    negative_mask = 1 - mask
    keep = torch.ones_like(mask)
    if mask_diagonal:
        keep.scatter_(1, torch.arange(len(anchors), device=anchors.device)[:, None], 0)
    mask = mask * keep
    negatives = (torch.exp(logits) * negative_mask).sum(1, keepdim=True)
    log_prob = logits - torch.log(torch.exp(logits) + negatives)
    mean = (mask * log_prob).sum(1) / mask.sum(1)
    return -(tau / tau_0) * mean.mean()


def region_pointers_released(labels: Tensor, num_classes: int, size: int, pixels: int) -> Tensor:
    """Where the released pixel queues' pointers stand after images (N, h, w).

    They move by one though more rows are written, start again when the end comes near, and leave
    class 0 out.
    """
    pointers = torch.zeros(num_classes, dtype=torch.long)
    for label in labels:
        for c in label.unique().tolist():
            if not 0 < c < num_classes:
                continue
            if pointers[c] + min(int((label == c).sum()), pixels) >= size:
                pointers[c] = 0
            else:
                pointers[c] = (pointers[c] + 1) % size
    return pointers


def sample_released(
    label: Tensor, prediction: Tensor, num_classes: int, max_samples: int, max_views: int
) -> tuple[Tensor, Tensor]:
    """Drawn places and their classes, by loops that ask the device for every group's size."""
    groups = []
    for image in range(len(label)):
        present = [c for c in torch.unique(label[image]).tolist() if c < num_classes]
        groups += [
            (image, c) for c in present if (label[image] == c).nonzero().shape[0] > max_views
        ]
    places, classes = [], []
    for image, c in groups:
        views = min(max_views, max_samples // len(groups))
        own, wrong = label[image].flatten() == c, prediction[image].flatten() != c
        hard, easy = (own & wrong).nonzero()[:, 0], (own & ~wrong).nonzero()[:, 0]
        numbers = quotas(len(easy), len(hard), views)
        for cell, number in zip((easy, hard), numbers, strict=True):
            chosen = cell[torch.randperm(len(cell), device=cell.device)[:number]]
            places.append(chosen + image * label[image].numel())
            classes.append(torch.full_like(chosen, c))
    return torch.cat(places), torch.cat(classes)


def enqueue_released(
    region: Tensor, pixel: Tensor, pointers: Tensor, embed: Tensor, label: Tensor, pixels: int
) -> None:
    """Image by image and class by class into queues (K, M, D), all classes, right rows."""
    size = region.shape[1]
    unit = embed.flatten(2)
    for image in range(len(label)):
        flat = label[image].flatten()
        for c in torch.unique(flat).tolist():
            if c >= len(region):
                continue
            place = (flat == c).nonzero()[:, 0]
            mean = F.normalize(unit[image][:, place].mean(1), dim=0)
            region[c, int(pointers[c, 0])] = mean
            pointers[c, 0] = (pointers[c, 0] + 1) % size
            chosen = place[torch.randperm(len(place), device=place.device)[:pixels]]
            slots = (int(pointers[c, 1]) + torch.arange(len(chosen), device=place.device)) % size
            pixel[c, slots] = unit[image][:, chosen].T
            pointers[c, 1] = (pointers[c, 1] + len(chosen)) % size


# Benchmarks


def _full_bank(device: torch.device, num_classes: int, size: int) -> MemoryBank:
    bank = MemoryBank(num_classes, 256, size=size).to(device)
    for part in bank.rows.split(10_000):  # the inputs leave no peak behind
        part.normal_()
        part /= part.norm(dim=1, keepdim=True)
    bank.written.fill_(size)
    return bank


def _make_memory(device: torch.device) -> tuple[Run, Run]:
    bank = _full_bank(device, 19, 5000)
    anchors = F.normalize(torch.randn(250, 256, device=device))
    classes = torch.arange(5, device=device).repeat_interleave(50)
    valid = torch.ones_like(classes, dtype=torch.bool)
    loss = PixelContrastLoss(temperature=TAU, base_temperature=TAU_0, loss_weight=1.0)

    def ours() -> list[Tensor]:
        leaf = anchors.clone().requires_grad_()
        value = loss(leaf, classes, valid, bank)
        return [value.detach(), *torch.autograd.grad(value, leaf)]

    def released() -> list[Tensor]:
        leaf = anchors.clone().requires_grad_()
        value = infonce_memory_dense(leaf, classes, bank.vectors.flatten(1, 2))
        return [value.detach(), *torch.autograd.grad(value, leaf)]

    return ours, released


def _make_sampling(device: torch.device) -> tuple[Run, Run]:
    """Both forms draw other pixels: what is compared is how many of each class."""
    blocks = torch.randint(0, 20, (2, 16, 32), device=device)
    label = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    wrong = torch.rand(label.shape, device=device) < 0.2
    prediction = torch.where(wrong, (label + 1) % 19, label)
    embed = F.normalize(torch.randn(2, 256, *label.shape[1:], device=device))
    loss, bank = PixelContrastLoss(), MemoryBank(19, 256).to(device)
    region, pixel = (torch.zeros(19, 5000, 256, device=device) for _ in range(2))
    pointers = torch.zeros(19, 2, dtype=torch.long, device=device)

    def ours() -> list[Tensor]:
        anchors = loss.sample(label, prediction, 19)
        pixels_at(embed, anchors.pixel_index)
        bank.written.zero_()
        bank.update(label, embed, lambda rows: rows)
        classes = anchors.classes[anchors.valid]
        return [torch.bincount(classes, minlength=19), bank.written.clone()]

    def released() -> list[Tensor]:
        places, classes = sample_released(label, prediction, 19, 1024, 100)
        pixels_at(embed, places)
        pointers.zero_()
        enqueue_released(region, pixel, pointers, embed, label, 10)
        return [torch.bincount(classes, minlength=19), pointers.clone()]

    return ours, released


def _make_projection(device: torch.device) -> tuple[Run, Run]:
    """Vectors of 1024 pixels of the levels of HRNet-W18 for two images of 512x1024."""
    widths = (18, 36, 72, 144)
    projection = Projection(widths, 256, None).to(device)
    levels = [
        torch.randn(2, c, 128 >> i, 256 >> i, device=device, requires_grad=True)
        for i, c in enumerate(widths)
    ]
    places = torch.randint(0, 2 * 128 * 256, (1024,), device=device)

    def ours() -> list[Tensor]:
        return _with_gradients(projection.unit(pixels_at(projection(levels, False), places)))

    def released() -> list[Tensor]:
        same = [F.interpolate(x, (128, 256), mode='bilinear') for x in levels]
        x = projection.norm(projection.conv(torch.cat(same, dim=1))).relu()
        x = F.conv2d(x, projection.last.weight[..., None, None], projection.last.bias)
        return _with_gradients(pixels_at(F.normalize(x), places))

    def _with_gradients(vectors: Tensor) -> list[Tensor]:
        return [vectors.detach(), *torch.autograd.grad(vectors.square().sum(0)[:99].sum(), levels)]

    return ours, released


def _training_step(config: str, size: tuple[int, int], device: torch.device) -> Run:
    """Losses and gradients of the config's model for random images of its CamVid classes."""
    model = MODELS.build(Config.fromfile(CONFIGS / config).model).to(device).train()
    images = torch.randn(2, 3, *size, device=device)
    label = torch.randint(0, 11, (2, size[0] // 32, size[1] // 32), device=device)
    label = F.interpolate(label[:, None].float(), size).long()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in label]

    def run() -> list[Tensor]:
        losses, _ = model.parse_losses(model.loss(images, samples))
        torch.autograd.grad(losses, list(model.parameters()))
        return []  # another model than the one it is compared with

    return run


def _make_step(config: str, size: tuple[int, int]) -> Callable[[torch.device], tuple[Run, Run]]:
    """A training step with contrast, behind its warm-up, against the same model's without."""

    def make(device: torch.device) -> tuple[Run, Run]:
        init_default_scope('mmseg')
        plain = 'fcn/hrnet18s_camvid.py'
        return _training_step(config, size, device), _training_step(plain, size, device)

    return make


BATCH, MEMORY = (f'pixel_contrast/hrnet18s_camvid{form}.py' for form in ('', '_memory'))
SMALL, LARGE = (352, 480), (512, 1024)

BENCHMARKS = [
    *(
        OpBenchmark(f'contrast_step{name}', f'HRNet-W18-small, 2x{h}x{w}', _make_step(config, size))
        for name, config, size in (
            ('', BATCH, SMALL),
            ('_memory', MEMORY, SMALL),
            ('_512x1024', BATCH, LARGE),
            ('_memory_512x1024', MEMORY, LARGE),
        )
        for h, w in (size,)
    ),
    OpBenchmark('pixel_contrast', '250 anchors, bank 19x2x5000x256', _make_memory),
    OpBenchmark('pixel_contrast_sampling', '2x128x256, K=19', _make_sampling),
    OpBenchmark('pixel_contrast_projection', '270 channels of 2x128x256', _make_projection),
]
