"""Refinement of a prediction from a scale to the next."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...layers.precision import at_least_float32
from .memory import MIB, PatchBatches, bytes_per_pixel
from .patches import (
    Corner,
    Size,
    count_covering_patches,
    crop_patches,
    crop_windows,
    paste,
    patch_corners,
    resize,
)
from .points import certainty, median_filter, nearest, select_points
from .settings import Inference


class Stage(NamedTuple):
    """Prediction after a scale."""

    probs: Tensor  # (1, K, h, w); at the first scale (1, K, *input_size)
    before: Tensor | None = None  # prediction of the scale before; None at the first scale
    points: Tensor | None = None  # (h, w) bool, refined pixels; None at the first scale

    def maps(self) -> dict[str, Tensor]:
        """Maps (1, C, h, w) that explain the stage: uncertainty before it, points, prediction."""
        if self.before is None or self.points is None:
            return dict(prediction=self.probs)
        points = self.points[None, None]
        uncertainty = 1 - certainty(resize(self.before, (*points.shape[2:],)))
        return dict(uncertainty=uncertainty, points=points, prediction=self.probs)


def softmax(logits: Tensor) -> Tensor:
    """Probabilities over dimension 1, float32 or better."""
    return at_least_float32(logits).softmax(dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Refinement:
    """Refinement at the scales that share a refiner.

    Args:
        segment: Function of patches (P, 3, *patch_size), their corners and the size of their scale
            that returns probabilities (P, K, *input_size).
        refiner: Network that merges probabilities of patches.
        inference: Settings of inference.
        patch_size: Size (h, w) of a patch in pixels of its scale.
        input_size: Size (h, w) of a patch in the networks.
        as_released: Whether the released code is reproduced, see ``MagNet``.
        batches: Batches of patches.
    """

    segment: Callable[[Tensor, list[Corner], Size], Tensor]
    refiner: nn.Module
    inference: Inference
    patch_size: Size
    input_size: Size
    as_released: bool
    batches: PatchBatches

    def refine(self, image: Tensor, before: Tensor, size: Size) -> Stage:
        """Prediction at a scale.

        Args:
            image: Image (1, 3, H, W) of any size.
            before: Probabilities (1, K, h', w') of the scale before.
            size: Size (h, w) of the scale.
        """
        coarse = resize(before, size)
        all_corners = patch_corners(size, self.patch_size, whole_steps=self.as_released)
        corners = self._choose(coarse, all_corners)
        count = self.inference.count_points(size, len(corners), len(all_corners))
        if not count:
            points = torch.zeros(size, dtype=torch.bool, device=coarse.device)
            return Stage(coarse, before, points)
        refined = self._refine_patches(resize(image, size), coarse, corners)
        score = certainty(nearest(refined, self.input_size))
        score *= 1 - certainty(nearest(coarse, self.input_size))
        covered = None
        if self.inference.n_patches is not None or len(corners) < len(all_corners):
            covered = self._cover(corners, size, framed=True).to(coarse.device) > 0
            score *= nearest(covered, self.input_size)
        score = median_filter(score[0, 0], self.inference.smooth_kernel)
        points = select_points(score, count, size)
        if covered is not None:
            points &= covered
        return Stage(torch.where(points, refined, coarse, out=refined), before, points)

    def _choose(self, coarse: Tensor, corners: list[Corner]) -> list[Corner]:
        """Patches to refine, in the order in which the released code pastes them."""
        count, least = self.inference.n_patches, self.inference.min_patch_uncertainty
        if count is None and not least and not self.as_released:
            return corners
        uncertainty = 1 - certainty(coarse)
        means = torch.cat(
            [
                crop_windows(uncertainty, [corner], self.patch_size, self.input_size).mean()[None]
                for corner in corners
            ]
        )
        values, order = means.sort(descending=not self.as_released, stable=True)
        certain = (values < least).tolist()
        pairs = zip(order[:count].tolist(), certain, strict=False)
        return [corners[i] for i, is_certain in pairs if not is_certain]

    def _refine_patches(self, scaled: Tensor, coarse: Tensor, corners: list[Corner]) -> Tensor:
        """Probabilities (1, K, h, w) from the refiner; 0 outside of all patches.

        Args:
            scaled: Image (1, 3, h, w) at the scale.
            coarse: Probabilities (1, K, h, w) of the scale before, resized to the scale.
            corners: Corners of the patches.
        """
        size: Size = (scaled.shape[2], scaled.shape[3])
        refined = torch.zeros_like(coarse)

        def refine(batch: list[Corner]) -> Tensor:
            fine = self.segment(crop_patches(scaled, batch, self.patch_size), batch, size)
            context = crop_windows(coarse, batch, self.patch_size, self.input_size)
            return resize(softmax(self.refiner(fine, context)), self.patch_size)

        map_bytes = coarse[0, 0].numel() * bytes_per_pixel(coarse.shape[1])
        free_bytes = int(self.inference.memory_limit * MIB - map_bytes)
        for batch, results in self.batches.run(
            refine, corners, device=coarse.device, free_bytes=free_bytes
        ):
            paste(refined, batch, results, overwrite=self.as_released)
        if any(n % p for n, p in zip(size, self.patch_size, strict=True)):  # patches overlap
            cover = self._cover(corners, size, framed=self.as_released)
            refined /= cover.clamp(min=1).to(refined)
        return refined

    def _cover(self, corners: list[Corner], size: Size, *, framed: bool) -> Tensor:
        """Number of patches that show each pixel (h, w), their frames omitted if ``framed``."""
        border = min(self.inference.border, min(self.patch_size) // 4) if framed else 0
        return count_covering_patches(corners, self.patch_size, size, border)
