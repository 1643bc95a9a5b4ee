"""Losses of all predictions (Sec. 3.4; classes, masks and dice as in Mask2Former)."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn

from ...layers.precision import at_least_float32
from .contrast import ContrastiveLoss
from .decoder import Prediction
from .matching import WEIGHTS, Weights, assign, matching_cost, sample_maps, sample_masks


class ImageTargets(NamedTuple):
    """Targets of an image: ``labels`` (M,), class indices, and ``masks`` (M, H, W), bool."""

    labels: Tensor
    masks: Tensor


class Points(Protocol):
    """Source of random points; ``name`` is that of the prediction, for recorded points."""

    def __call__(self, name: str, kind: str, shape: tuple[int, int], like: Tensor) -> Tensor:
        """Points (*shape, 2), uniform in [0, 1]; ``kind`` is match_<i>, over or rand."""


def random_points(name: str, kind: str, shape: tuple[int, int], like: Tensor) -> Tensor:
    """Random points (*shape, 2) in the dtype and on the device of ``like``."""
    return torch.rand(*shape, 2, dtype=like.dtype, device=like.device)


class Criterion(nn.Module):
    """Losses of the predictions before and after each layer, and the contrastive loss.

    Args:
        num_classes: Number of classes K.
        num_points: Number of points P at which masks are compared.
        oversample_ratio: Number of random candidates of a mask, as a multiple of P.
        importance_ratio: Fraction of P that is selected among the candidates, where the mask is
            least certain; the other points are random.
        no_object_weight: Weight of "no object" in the classification.
        weights: Weights of the terms.
        temperature: Temperature of the contrastive loss at the start.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_ratio: float = 0.75,
        no_object_weight: float = 0.1,
        weights: Weights = WEIGHTS,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.num_points = num_points
        self.num_candidates = int(num_points * oversample_ratio)
        self.num_certain = int(num_points * importance_ratio)
        self.weights = weights
        class_weights = torch.ones(num_classes + 1)
        class_weights[-1] = no_object_weight
        self.class_weights: Tensor
        self.register_buffer('class_weights', class_weights, persistent=False)
        self.contrastive: ContrastiveLoss | None = None
        if weights.contrastive:
            self.contrastive = ContrastiveLoss(temperature)
        self.points: Points = random_points

    def forward(
        self,
        predictions: Sequence[Prediction],
        mask_features: Tensor,
        targets: Sequence[ImageTargets],
        queries: Tensor | None = None,
        texts: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted losses, float32 or wider.

        Args:
            predictions: Predictions before the first layer and after each layer.
            mask_features: (N, C, h, w).
            targets: Targets of each image.
            queries: Queries (N, Q, C) that are compared with the texts; None for no contrast.
            texts: Vectors (N, Q, C) of the texts.

        Returns:
            ``loss_ce``, ``loss_mask`` and ``loss_dice`` of the last prediction, ``d0.loss_ce`` and
            so on of the others, and ``loss_contrastive``.
        """
        with torch.autocast(mask_features.device.type, enabled=False):
            features = at_least_float32(mask_features)
            wide = [Prediction(*map(at_least_float32, p)) for p in predictions]
            names = [*(f'd{i}.' for i in range(len(wide) - 1)), '']
            matches = self.match(wide, features, targets, names)
            divisor = _mean_count(sum(len(t.labels) for t in targets), features)
            losses: dict[str, Tensor] = {}
            for name, prediction, match in zip(names, wide, matches, strict=True):
                terms = self.losses_of(prediction, features, targets, match, divisor, name)
                losses |= {f'{name}{key}': value for key, value in terms.items()}
            if self.contrastive is not None and queries is not None and texts is not None:
                contrast = self.contrastive(at_least_float32(queries), at_least_float32(texts))
                losses['loss_contrastive'] = self.weights.contrastive * contrast
        return losses

    @torch.no_grad()
    def match(
        self,
        predictions: Sequence[Prediction],
        features: Tensor,
        targets: Sequence[ImageTargets],
        names: Sequence[str],
    ) -> list[list[tuple[Tensor, Tensor]]]:
        """Matched queries and targets of each prediction and image."""
        costs = self.costs(predictions, features, targets, names)
        flat = assign([cost for of_images in costs for cost in of_images])
        count = len(targets)
        return [flat[i : i + count] for i in range(0, len(flat), count)]

    def costs(
        self,
        predictions: Sequence[Prediction],
        features: Tensor,
        targets: Sequence[ImageTargets],
        names: Sequence[str],
    ) -> list[list[Tensor]]:
        """Cost (Q, M) of each prediction and image.

        The features are sampled at the points, not the masks of all queries.
        """
        costs: list[list[Tensor]] = []
        for name, prediction in zip(names, predictions, strict=True):
            costs.append([])
            for i, target in enumerate(targets):
                points = self.points(name, f'match_{i}', (1, self.num_points), features)
                sampled = sample_maps(features[i : i + 1], points)[0]  # (C, P)
                mask_logits = prediction.embedding[i] @ sampled
                masks = sample_masks(target.masks, points)
                args = prediction.logits[i], mask_logits, target.labels, masks
                costs[-1].append(matching_cost(*args, self.weights))
        return costs

    def losses_of(
        self,
        prediction: Prediction,
        features: Tensor,
        targets: Sequence[ImageTargets],
        matches: Sequence[tuple[Tensor, Tensor]],
        divisor: Tensor,
        name: str = '',
    ) -> dict[str, Tensor]:
        """Weighted losses of one prediction, for its ``matches`` of each image."""
        pairs = list(zip(targets, matches, strict=True))
        logits = prediction.logits
        classes = torch.full(logits.shape[:2], logits.shape[2] - 1, device=logits.device)
        for row, (target, (queries, numbers)) in zip(classes, pairs, strict=True):
            row[queries] = target.labels[numbers]
        # masks of the matched queries only: (M, h, w)
        mask_logits = torch.cat(
            [
                torch.einsum('mc,chw->mhw', embedding[queries], image)
                for embedding, image, (queries, _) in zip(
                    prediction.embedding, features, matches, strict=True
                )
            ]
        )
        masks = [(target.masks, numbers) for target, (_, numbers) in pairs]
        values, truth = self._sample(mask_logits, masks, name)
        loss_ce = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), self.class_weights)
        loss_mask = F.binary_cross_entropy_with_logits(values, truth, reduction='none').mean(1)
        return dict(
            loss_ce=self.weights.ce * loss_ce,
            loss_mask=self.weights.mask * loss_mask.sum() / divisor,
            loss_dice=self.weights.dice * dice(values, truth).sum() / divisor,
        )

    def _sample(
        self, mask_logits: Tensor, masks: Sequence[tuple[Tensor, Tensor]], name: str
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (M, P) and the targets' values (M, P) at points that are mostly uncertain."""
        maps = mask_logits[:, None]
        count = len(maps)
        with torch.no_grad():
            points = self.points(name, 'over', (count, self.num_candidates), maps)
            certainty = sample_maps(maps, points)[:, 0].abs()
            chosen = certainty.topk(self.num_certain, dim=1, largest=False, sorted=False).indices
            points = points.gather(1, chosen[..., None].expand(-1, -1, 2))
            num_random = self.num_points - self.num_certain
            random = self.points(name, 'rand', (count, num_random), maps)
            points = torch.cat([points, random], dim=1)
            parts = points.split([len(numbers) for _, numbers in masks])
            truth = torch.cat(
                [
                    sample_masks(of_image[numbers], part)
                    for (of_image, numbers), part in zip(masks, parts, strict=True)
                ]
            )
        return sample_maps(maps, points)[:, 0], truth


def dice(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Dice loss (M,) of mask logits (M, P) and masks (M, P) in [0, 1]."""
    probs = mask_logits.sigmoid()
    overlap = 2 * (probs * masks).sum(1)
    return 1 - (overlap + 1) / (probs.sum(1) + masks.sum(1) + 1)


def _mean_count(count: int, like: Tensor) -> Any:
    """Number of targets, averaged over the processes; at least 1."""
    mean = torch.full((), float(count), device=like.device, dtype=like.dtype)
    all_reduce(mean, 'mean')
    return mean.clamp(min=1)
