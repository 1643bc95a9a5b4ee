"""OneFormer's operations: slow, obvious formulas, and the released forms for measuring."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.layers.sizes import Size, size_of
from mmseg_ext.papers.oneformer import decoder, deformable
from mmseg_ext.papers.oneformer.attention import Attention, sine_map
from mmseg_ext.papers.oneformer.criterion import Criterion, ImageTargets
from mmseg_ext.papers.oneformer.decoder import (
    Decoded,
    MaskDecoder,
    Prediction,
    QueryLayer,
    attention_region,
    mask_logits,
)
from mmseg_ext.papers.oneformer.deformable import sample_levels
from mmseg_ext.papers.oneformer.head import OneFormerHead
from mmseg_ext.papers.oneformer.matching import Weights
from mmseg_ext.papers.oneformer.targets import Targets, add_targets
from mmseg_ext.papers.oneformer.text import TextBatch, TextBranch, image_texts, padded_ids

NAMES = [f'name {i}' for i in range(19)]


def sine_slow(size: Size, channels: int) -> Tensor:
    """Sine positions (h * w, C), number by number (section 3.1 of DETR)."""
    rows = []
    for i in range(size[0]):
        for j in range(size[1]):
            vector = []
            for number, length in ((i, size[0]), (j, size[1])):
                position = (number + 1) / (length + 1e-6) * 2 * torch.pi
                for k in range(channels // 2):
                    angle = torch.tensor(position / 10000 ** (2 * (k // 2) / (channels // 2)))
                    vector.append(angle.cos() if k % 2 else angle.sin())
            rows.append(torch.stack(vector))
    return torch.stack(rows)


def attend_released(
    attention: Attention, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None
) -> Tensor:
    """The attention by ``nn.MultiheadAttention`` with its stored weights; blocked (N, Q, L)."""
    module = nn.MultiheadAttention(
        query.shape[2], attention.num_heads, attention.dropout, batch_first=True
    )
    module.train(attention.training)
    # its parameters are those of ours, so that gradients reach them
    for name, parameter in attention.named_parameters():
        owner, _, leaf = name.rpartition('.')
        setattr(module.get_submodule(owner), leaf, parameter)
    if blocked is not None:
        blocked = blocked.repeat_interleave(attention.num_heads, 0)
    return module(query, key, value, attn_mask=blocked)[0]


def query_layer_released(
    layer: QueryLayer, x: Tensor, position: Tensor, features: Tensor, conv: nn.Conv2d, size: Size
) -> Tensor:
    """``QueryLayer`` with whole keys and values, which are stored."""
    query = x + position
    x = layer.norm1(x + layer.dropout(attend_released(layer.self_attn, query, query, x)))
    memory = sine_map(size, x.shape[2], x).expand(len(x), -1, -1)
    added = conv(features.mT.unflatten(2, size)).flatten(2).mT
    mixed = attend_released(layer.cross_attn, x + position, memory + added, memory)
    return layer.ffn(layer.norm2(x + layer.dropout(mixed)))


def region_released(embedding: Tensor, features: Tensor, size: Size) -> Tensor:
    """``attention_region``: masks at stride 4, then resized."""
    return region_of_masks(mask_logits(embedding, features), size)


def region_of_masks(masks: Tensor, size: Size) -> Tensor:
    """Pixels that each query sees, bool (N, Q, h, w), from its logits at stride 4."""
    masks = F.interpolate(masks.detach(), size, mode='bilinear', align_corners=False)
    blocked = masks.sigmoid() < 0.5
    for image in blocked:
        for query in image:
            if query.all():
                query[:] = False
    return ~blocked


def sample_levels_released(
    values: Tensor, locations: Tensor, weights: Tensor, sizes: Sequence[Size]
) -> Tensor:
    """``sample_levels`` with the samples of all levels at a time."""
    count, _, heads, width = values.shape
    samples = []
    for i, (size, level) in enumerate(
        zip(sizes, values.split([h * w for h, w in sizes], 1), strict=True)
    ):
        maps = level.permute(0, 2, 3, 1).reshape(count * heads, width, *size)
        grid = 2 * locations[:, :, :, i].transpose(1, 2).flatten(0, 1) - 1
        samples.append(F.grid_sample(maps, grid, align_corners=False))
    stacked = torch.stack(samples, dim=-2).flatten(-2)
    weights = weights.transpose(1, 2).reshape(count * heads, 1, weights.shape[1], -1)
    return (stacked * weights).sum(-1).view(count, heads * width, -1).transpose(1, 2)


def text_vectors_released(branch: TextBranch, texts: Sequence[Sequence[str]]) -> Tensor:
    """Vectors (N, T, C): every text of every image, with all 77 ids."""
    ids = torch.stack([padded_ids(rows) for rows in texts]).to(branch.context.weight.device)
    flat = ids.flatten(0, 1)
    vectors = branch.projector(branch.encoder(flat, flat.argmax(1))).view(*ids.shape[:2], -1)
    return torch.cat([vectors, branch.context.weight.expand(len(ids), -1, -1)], dim=1)


def sample_slow(mask: Tensor, points: Tensor) -> Tensor:
    """Bilinear values (P,) of a map (h, w) at points (P, 2), zero outside of it."""
    h, w = mask.shape
    values = []
    for x, y in points:
        column, row = x * w - 0.5, y * h - 0.5
        value = torch.zeros(())
        for i in range(h):
            for j in range(w):
                near = (1 - (row - i).abs()).clamp(min=0) * (1 - (column - j).abs()).clamp(min=0)
                value = value + mask[i, j] * near
        values.append(value)
    return torch.stack(values)


def cost_slow(
    logits: Tensor, masks: Tensor, labels: Tensor, truth: Tensor, weights: Weights
) -> Tensor:
    """Cost (Q, M), pair by pair; masks (Q, P) are logits, truth (M, P)."""
    cost = torch.zeros(len(logits), len(labels))
    for q in range(len(logits)):
        for m in range(len(labels)):
            probs = masks[q].sigmoid()
            dice = 1 - (2 * (probs * truth[m]).sum() + 1) / (probs.sum() + truth[m].sum() + 1)
            bce = F.binary_cross_entropy_with_logits(masks[q], truth[m])
            score = logits[q].softmax(0)[labels[m]]
            cost[q, m] = weights.mask * bce - weights.ce * score + weights.dice * dice
    return cost


def point_samples(maps: Tensor, points: Tensor) -> Tensor:
    """Values (M, P) of maps (M, H, W) at points (M or 1, P, 2)."""
    grid = 2 * points.expand(len(maps), -1, -1)[:, None] - 1
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, 0]


def losses_released(
    criterion: Criterion,
    predictions: Sequence[Prediction],
    features: Tensor,
    targets: Sequence[ImageTargets],
    known_masks: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Losses of classes, masks and dice of each prediction, from the masks of all queries.

    ``known_masks`` are the mask logits (N, Q, h, w) of the first predictions.
    """
    weights, losses = criterion.weights, []
    count = max(sum(len(t.labels) for t in targets), 1)
    names = [*(f'd{i}.' for i in range(len(predictions) - 1)), '']
    rest = predictions[len(known_masks) :]
    all_masks = [*known_masks, *(mask_logits(p.embedding, features) for p in rest)]
    for name, prediction, masks in zip(names, predictions, all_masks, strict=True):
        classes = torch.full(prediction.logits.shape[:2], prediction.logits.shape[2] - 1)
        classes = classes.to(masks.device)
        matched, truth = [], []
        for i, target in enumerate(targets):
            points = criterion.points(name, f'match_{i}', (1, criterion.num_points), masks)
            of_targets = point_samples(target.masks.float(), points)
            with torch.no_grad():
                probs = point_samples(masks[i], points)
                cost = cost_of_pairs(
                    prediction.logits[i], probs, target.labels, of_targets, weights
                )
            queries, numbers = map(torch.as_tensor, linear_sum_assignment(cost.cpu()))
            classes[i, queries] = target.labels[numbers]
            matched.append(masks[i, queries])
            truth.append(target.masks[numbers].float())
        pred, label = torch.cat(matched), torch.cat(truth)
        with torch.no_grad():
            over = criterion.points(name, 'over', (len(pred), criterion.num_candidates), pred)
            uncertain = -point_samples(pred, over).abs()
            best = uncertain.topk(criterion.num_certain, dim=1).indices
            chosen = over.gather(1, best[..., None].expand(-1, -1, 2))
            shape = (len(pred), criterion.num_points - criterion.num_certain)
            points = torch.cat([chosen, criterion.points(name, 'rand', shape, pred)], dim=1)
            label = point_samples(label, points)
        values = point_samples(pred, points)
        probs = values.sigmoid()
        bce = F.binary_cross_entropy_with_logits(values, label, reduction='none').mean(1)
        overlap = 2 * (probs * label).sum(1) + 1
        dice = 1 - overlap / (probs.sum(1) + label.sum(1) + 1)
        ce = F.cross_entropy(prediction.logits.transpose(1, 2), classes, criterion.class_weights)
        terms = weights.ce * ce, weights.mask * bce.sum() / count, weights.dice * dice.sum() / count
        losses += terms
    return losses


def cost_of_pairs(
    logits: Tensor, masks: Tensor, labels: Tensor, truth: Tensor, weights: Weights
) -> Tensor:
    """``cost_slow`` with both products of the cross entropy."""
    probs = masks.sigmoid()
    dice = 1 - (2 * probs @ truth.T + 1) / (probs.sum(1)[:, None] + truth.sum(1) + 1)
    bce = F.softplus(-masks) @ truth.T + F.softplus(masks) @ (1 - truth).T
    score = logits.softmax(1)[:, labels]
    return weights.mask * bce / masks.shape[1] - weights.ce * score + weights.dice * dice


def attention_released(
    attention: Attention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """``Attention.forward`` by ``attend_released``."""
    shape = len(query), query.shape[1], key.shape[1]
    blocked = None
    if is_causal:
        blocked = torch.ones(shape[1:], dtype=torch.bool, device=query.device).triu(1).expand(shape)
    elif allowed is not None:
        blocked = ~allowed[:, 0].expand(shape)
    return attend_released(attention, query, key, value, blocked)


@contextmanager
def released_forms() -> Iterator[None]:
    """Every fast form of the model in training is the released one; one step within it."""
    kept: list[Tensor] = []  # mask logits at stride 4, which the losses use again

    def decode(module: MaskDecoder, token: Tensor, features: Tensor, levels: Any) -> Decoded:
        def region(embedding: Tensor, level: Tensor) -> Tensor:
            kept.append(mask_logits(embedding, features))
            return region_of_masks(kept[-1], size_of(level))

        with patch.object(decoder, 'attention_region', region):
            return forward(module, token, features, levels)

    def losses(
        criterion: Criterion,
        predictions: Sequence[Prediction],
        features: Tensor,
        targets: Sequence[ImageTargets],
        queries: Tensor,
        texts: Tensor,
    ) -> dict[str, Tensor]:
        values = losses_released(criterion, predictions, features, targets, kept)
        assert criterion.contrastive is not None
        values.append(criterion.weights.contrastive * criterion.contrastive(queries, texts))
        return {f'loss_{i}': value for i, value in enumerate(values)}

    def texts_of(head: OneFormerHead, targets: Sequence[Targets], device: Any) -> Tensor:
        length = head.num_queries - head.num_context
        assert head.text_branch is not None
        return text_vectors_released(
            head.text_branch,
            [image_texts(t.task, t.labels, head.class_names, length) for t in targets],
        )

    def keep_size(x: Tensor, size: Size) -> Tensor:
        return x.new_empty(*x.shape[:2], *size)

    forward = MaskDecoder.forward
    with ExitStack() as stack:
        for owner, name, form in (
            (Attention, 'forward', attention_released),
            (QueryLayer, 'forward', query_layer_released),
            (MaskDecoder, 'forward', decode),
            (decoder, '_resize', keep_size),
            (deformable, 'sample_levels', sample_levels_released),
            (Criterion, 'forward', losses),
            (OneFormerHead, 'text_vectors', texts_of),
        ):
            stack.enter_context(patch.object(owner, name, form))
        yield


def recorded_points(device: torch.device) -> Any:
    """Random points that are the same for each call with the same name and kind."""
    recorded: dict[tuple, Tensor] = {}

    def points(name: str, kind: str, shape: tuple[int, int], like: Tensor) -> Tensor:
        if (name, kind) not in recorded:
            recorded[name, kind] = torch.rand(*shape, 2, device=device)
        return recorded[name, kind]

    return points


def image_of_blocks(size: Size, device: torch.device) -> SegDataSample:
    """Data sample of an image that 20 objects tile, for the panoptic task."""
    h, w = size
    numbers = torch.arange(20, dtype=torch.int16, device=device).view(4, 5)
    numbers = numbers.repeat_interleave(h // 4, 0).repeat_interleave(-(-w // 5), 1)[:, :w]
    sample = SegDataSample(gt_sem_seg=PixelData(data=numbers[None] % len(NAMES)))
    add_targets(sample, Targets('panoptic', [i % len(NAMES) for i in range(20)], numbers))
    return sample


def without_dropout(module: nn.Module) -> nn.Module:
    """The module, whose dropout never drops."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif isinstance(getattr(part, 'dropout', None), float):
            part.dropout = 0.0
    return module


def blocks(size: Size, rows: int, columns: int, device: Any = None) -> ImageTargets:
    """Targets that tile an image, of classes 0 to 18."""
    count, (h, w) = rows * columns, size
    index = torch.arange(count, device=device).view(rows, columns)
    index = index.repeat_interleave(h // rows, 0).repeat_interleave(w // columns, 1)
    numbers = torch.arange(count, device=device)
    return ImageTargets(numbers % 19, index == numbers[:, None, None])


def _make_text(device: torch.device) -> tuple[Run, Run]:
    branch = TextBranch(256).to(device)
    names = [f'name {i}' for i in range(19)]
    texts = [
        image_texts('panoptic', [(7 * image + i) % 19 for i in range(20)], names, 134)
        for image in range(16)
    ]

    # without gradients, for which the released form would need more than 16 GiB
    def ours() -> list[Tensor]:
        with torch.no_grad():
            return [branch(TextBatch.of(texts).to(device))]

    def released() -> list[Tensor]:
        with torch.no_grad():
            return [text_vectors_released(branch, texts)]

    return ours, released


def _make_regions(device: torch.device) -> tuple[Run, Run]:
    features = torch.randn(1, 256, 128, 256, device=device)
    embeddings = torch.randn(9, 1, 150, 256, device=device)
    sizes = [(16, 32), (32, 64), (64, 128)]

    def ours() -> list[Tensor]:
        small = [F.interpolate(features, s, mode='bilinear', align_corners=False) for s in sizes]
        return [attention_region(e, small[i % 3]).float().mean(1) for i, e in enumerate(embeddings)]

    def released() -> list[Tensor]:
        return [
            region_released(e, features, sizes[i % 3]).float().mean(1)
            for i, e in enumerate(embeddings)
        ]

    return ours, released


def _make_query_layer(device: torch.device) -> tuple[Run, Run]:
    layer = QueryLayer(256, 2048, 8, dropout=0.0).to(device)
    conv = nn.Conv2d(256, 256, 1, device=device)
    position = torch.randn(149, 256, device=device)
    x = torch.randn(1, 149, 256, device=device)
    features = torch.randn(1, 128 * 256, 256, device=device, requires_grad=True)

    def run(form: Any) -> list[Tensor]:
        result = form(layer, x, position, features, conv, (128, 256))
        return [result.detach(), *torch.autograd.grad(result[..., 0].sum(), [features])]

    return lambda: run(QueryLayer.forward), lambda: run(query_layer_released)


def _make_deformable(device: torch.device) -> tuple[Run, Run]:
    sizes = [(16, 32), (32, 64), (64, 128)]
    length = sum(h * w for h, w in sizes)
    values = torch.randn(1, length, 8, 32, device=device, requires_grad=True)
    locations = torch.rand(1, length, 8, 3, 4, 2, device=device, requires_grad=True)
    weights = torch.rand(1, length, 8, 3, 4, device=device).flatten(3).softmax(3)
    weights = weights.unflatten(3, (3, 4)).requires_grad_()

    def run(form: Any) -> list[Tensor]:
        result = form(values, locations, weights, sizes)
        inputs = [values, locations, weights]
        return [result.detach(), *torch.autograd.grad(result.square().mean(), inputs)]

    return lambda: run(sample_levels), lambda: run(sample_levels_released)


def _make_losses(device: torch.device) -> tuple[Run, Run]:
    criterion = Criterion(19).to(device)
    criterion.points = recorded_points(device)
    features = torch.randn(2, 256, 128, 256, device=device, requires_grad=True)
    predictions = [
        Prediction(
            torch.randn(2, 150, 20, device=device, requires_grad=True),
            (torch.randn(2, 150, 256, device=device) / 16).requires_grad_(),
        )
        for _ in range(3)
    ]
    targets = [blocks((512, 1024), 2, 8, device), blocks((512, 1024), 4, 4, device)]
    inputs = [features, *(x for p in predictions for x in p)]

    def run(losses: Any) -> list[Tensor]:
        values = losses()
        return [*(x.detach() for x in values), *torch.autograd.grad(sum(values), inputs)]

    return (
        lambda: run(lambda: list(criterion(predictions, features, targets).values())),
        lambda: run(lambda: losses_released(criterion, predictions, features, targets)),
    )


def make_step(
    device: torch.device, size: Size = (512, 1024), num_queries: int = 150
) -> tuple[Run, Run]:
    """Losses and a gradient of a step on one image, both forms."""
    init_default_scope('mmseg')
    head = dict(
        type='OneFormerHead',
        in_channels=[256, 512, 1024, 2048],
        num_classes=19,
        num_queries=num_queries,
    )
    backbone = dict(type='ResNet', depth=50)
    model: Any = MODELS.build(dict(type='OneFormer', backbone=backbone, decode_head=head))
    model.dataset_meta = dict(classes=NAMES)
    without_dropout(model.to(device).train())
    model.decode_head.criterion.points = recorded_points(device)
    images = torch.randn(1, 3, *size, device=device)
    sample = image_of_blocks(size, device)

    def step() -> list[Tensor]:
        model.zero_grad()
        loss: Any = sum(model.loss(images, [sample]).values())
        loss.backward()
        return [loss.detach().reshape(()), model.decode_head.mask_decoder.query_embed.weight.grad]

    def released() -> list[Tensor]:
        with released_forms():
            return step()

    return step, released


BENCHMARKS = [
    OpBenchmark('oneformer_text', '16 images x 134 texts', _make_text),
    OpBenchmark('oneformer_regions', '9 x 150 x 128x256', _make_regions),
    OpBenchmark('oneformer_query_attention', '1x149x(128x256)', _make_query_layer),
    OpBenchmark('oneformer_deformable', '1x256, 10752 pixels', _make_deformable),
    OpBenchmark('oneformer_losses', '2x512x1024, 3 predictions', _make_losses),
    OpBenchmark('oneformer_step', 'R50, 1x3x512x1024', make_step),
]
