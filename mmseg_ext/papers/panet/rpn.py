"""Region proposals of every level, as in FPN."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...layers.precision import at_least_float32
from ...layers.sizes import Size, size_of
from .boxes import Window, clip, decode, encode, nms
from .settings import Inference, Training
from .targets import Objects, match, sample, touches_crowd

ONE = (1.0, 1.0, 1.0, 1.0)  # weights of the deltas


class Candidates(NamedTuple):
    """Output of the network for the A anchors of each level.

    Args:
        logits: Logits of an object, (N, A_i) for each level.
        deltas: Deltas of the anchors, (N, A_i, 4) for each level.
        anchors: Anchors, (A_i, 4) for each level.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]


class RPN(BaseModule):
    """Levels of a neck to proposals, boxes that may hold an object.

    Args:
        in_channels: Width of the levels.
        strides: Strides of the levels, fine to coarse.
        anchor_scale: Size of the anchors in strides.
        ratios: Heights of the anchors over their widths.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        anchor_scale: float = 8.0,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
    ) -> None:
        super().__init__()
        self.strides, self.ratios, self.anchor_scale = tuple(strides), tuple(ratios), anchor_scale
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.objectness = nn.Conv2d(in_channels, len(ratios), 1)
        self.deltas = nn.Conv2d(in_channels, 4 * len(ratios), 1)

    def init_weights(self) -> None:
        """Initialises all layers with the deviation 0.01."""
        super().init_weights()
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def anchors(self, size: Size, stride: int, like: Tensor) -> Tensor:
        """Anchors (h w A, 4) of a level, centred in its cells."""
        root = torch.tensor(self.ratios).sqrt()
        half = torch.stack([1 / root, root], 1) * (self.anchor_scale * stride / 2)  # (A, x y)
        y, x = (stride * (torch.arange(length) + 0.5) for length in size)
        rows, columns = torch.meshgrid(y, x, indexing='ij')
        centres = torch.stack([columns, rows], 2).view(-1, 1, 2)
        return torch.cat([centres - half, centres + half], 2).view(-1, 4).to(like)

    def forward(self, levels: Sequence[Tensor]) -> Candidates:
        """Levels (N, C, H_i, W_i) to logits, deltas and anchors."""
        logits, deltas, anchors = [], [], []
        for level, stride in zip(levels, self.strides, strict=True):
            x = self.conv(level).relu()
            logit = at_least_float32(self.objectness(x))
            logits.append(logit.movedim(1, 3).flatten(1))
            delta = at_least_float32(self.deltas(x)).unflatten(1, (-1, 4))  # (N, A, 4, h, w)
            deltas.append(delta.permute(0, 3, 4, 1, 2).flatten(1, 3))
            anchors.append(self.anchors(size_of(level), stride, logit))
        return Candidates(logits, deltas, anchors)

    @torch.no_grad()
    def proposals(
        self, candidates: Candidates, windows: Sequence[Window], settings: Inference | Training
    ) -> list[Tensor]:
        """Boxes (M_i, 4) of each image, those with the highest scores of all levels.

        Args:
            candidates: Output of the network.
            windows: The image without padding, for each image.
            settings: Numbers of proposals before and after suppression, and its threshold.
        """
        images = []
        for i, window in enumerate(windows):
            boxes, scores, groups = [], [], []
            for number, (logits, deltas, anchors) in enumerate(zip(*candidates, strict=True)):
                count = min(settings.proposals_per_level, logits.shape[1])
                top = logits[i].topk(count)
                decoded = decode(anchors[top.indices], deltas[i, top.indices], ONE)
                boxes.append(clip(decoded.nan_to_num(), window))
                scores.append(top.values)
                groups.append(torch.full_like(top.indices, number))
            stacked = torch.cat(boxes)
            survivors = nms(stacked, torch.cat(scores), torch.cat(groups), settings.proposal_iou)
            images.append(stacked[survivors[: settings.proposals_per_image]])
        return images

    def loss(
        self, candidates: Candidates, objects: Sequence[Objects], settings: Training
    ) -> dict[str, Tensor]:
        """Losses of a random sample of the anchors of each image."""
        anchors = torch.cat(candidates.anchors)
        logits, deltas = torch.cat(candidates.logits, 1), torch.cat(candidates.deltas, 1)
        total: Any = 0
        box_total: Any = 0
        count = 0
        for i, image in enumerate(objects):
            matched = match(
                anchors, image.boxes, settings.anchor_positive, settings.anchor_negative, best=True
            )
            is_negative = matched.is_negative & ~touches_crowd(anchors, image.crowds)
            positive, negative = sample(
                matched.is_positive, is_negative, settings.anchors_per_image, 0.5
            )
            chosen = torch.cat([positive, negative])
            target = torch.zeros_like(logits[i, chosen])
            target[: len(positive)] = 1
            total = total + F.binary_cross_entropy_with_logits(
                logits[i, chosen], target, reduction='sum'
            )
            target = encode(anchors[positive], image.boxes[matched.number[positive]], ONE)
            box_total = box_total + F.smooth_l1_loss(
                deltas[i, positive], target, reduction='sum', beta=settings.rpn_beta
            )
            count += len(chosen)
        # without a positive anchor the deltas have the gradient 0
        box_total = box_total + 0 * deltas.sum()
        return dict(loss_rpn_cls=total / max(count, 1), loss_rpn_box=box_total / max(count, 1))
