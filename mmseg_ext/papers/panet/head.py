"""PANet's decode head: proposals, and box and mask heads on regions of all levels."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from ...errors import UserError
from ...layers.levels import require_levels
from ...layers.precision import at_least_float32
from ...layers.sizes import Size, input_size, size_of
from ...segmentors.batches import check_logits
from ...segmentors.protocols import Maps, Point
from ...segmentors.scores import as_logits
from .boxes import Window, encode, rois_of
from .explain import explain_regions
from .instances import BOX_WEIGHTS, Detections, scaled, select, semantic_scores, windows_of
from .rpn import RPN
from .settings import Inference, Training, read_settings
from .targets import mask_targets, objects_of, sample_regions

POOLING = MappingProxyType(dict(type='AdaptiveFeaturePooling'))
BOX_HEAD = MappingProxyType(dict(type='PANetBoxHead'))
MASK_HEAD = MappingProxyType(dict(type='PANetMaskHead'))


@MODELS.register_module()
class PANetInstanceHead(BaseModule):
    """Levels of a neck to instances.

    In ``EncoderDecoder`` it predicts the semantic result. ``PANetInstanceSegmentor`` also gives
    instances.

    Args:
        in_channels: Widths of the levels, all equal.
        num_classes: Number of classes K, without background.
        in_index: Positions of the levels among the outputs of the neck.
        strides: Strides of the levels, fine to coarse.
        anchor_scale: Size of the anchors in strides.
        ratios: Heights of the anchors over their widths.
        pooling: Config of ``AdaptiveFeaturePooling``; its levels are the first ones.
        box_head: Config of ``PANetBoxHead``.
        mask_head: Config of ``PANetMaskHead``.
        ignore_index: Label of ignored pixels of the semantic label.
        norm_cfg: Not used; the heads have their own norm.

    Raises:
        UserError: One level only, levels of different widths, or other strides than levels.
    """

    reads_levels = True
    training_parts = ()
    align_corners = False
    explains_pixels = False

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        num_classes: int,
        in_index: Sequence[int] = (0, 1, 2, 3, 4),
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        anchor_scale: float = 8.0,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        pooling: Mapping = POOLING,
        box_head: Mapping = BOX_HEAD,
        mask_head: Mapping = MASK_HEAD,
        ignore_index: int = 255,
        norm_cfg: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(init_cfg)
        require_levels(self, in_channels)
        self.pooling: Any = MODELS.build(dict(POOLING) | dict(pooling))
        _check_levels(in_channels, in_index, strides, len(self.pooling.strides))
        self.in_channels, self.in_index = list(in_channels), list(in_index)
        self.num_classes = self.out_channels = num_classes
        self.ignore_index, self.norm_cfg = ignore_index, norm_cfg
        self.dataset_meta: Mapping[str, Any] = {}
        width = in_channels[0]
        self.rpn = RPN(width, strides=strides, anchor_scale=anchor_scale, ratios=ratios)
        shared = dict(in_channels=width, num_classes=num_classes, num_levels=self.pooling.num_grids)
        self.box_head: Any = MODELS.build(shared | dict(BOX_HEAD) | dict(box_head))
        self.mask_head: Any = MODELS.build(shared | dict(MASK_HEAD) | dict(mask_head))

    def detect(
        self, levels: Sequence[Tensor], windows: Sequence[Window], settings: Inference
    ) -> list[Detections]:
        """Instances of each image, in its input.

        Args:
            levels: Levels (N, C, H_i, W_i) of the neck.
            windows: The part without padding of each input.
            settings: Thresholds and numbers.
        """
        levels = [levels[i] for i in self.in_index]
        candidates = self.rpn(levels)
        for logits in candidates.logits:
            check_logits(logits)
        proposals = self.rpn.proposals(candidates, windows, settings)
        output = self.box_head(self.pooling(levels, rois_of(proposals), self.box_head.roi_size))
        counts = [len(boxes) for boxes in proposals]
        logits, deltas = at_least_float32(output.logits), at_least_float32(output.deltas)
        check_logits(logits)
        check_logits(deltas)
        images = zip(proposals, logits.split(counts), deltas.split(counts), windows, strict=True)
        selected = [select(*image, settings) for image in images]
        boxes, labels = [item[0] for item in selected], torch.cat([item[2] for item in selected])
        masks = logits.new_zeros(0, self.mask_head.mask_size, self.mask_head.mask_size)
        if len(labels):
            grids = self.pooling(levels, rois_of(boxes), self.mask_head.roi_size)
            masks = at_least_float32(self.mask_head.logits_of(grids, labels))
            check_logits(masks)
        probs = masks.sigmoid().split([len(image) for image in boxes])
        return [Detections(*item, mask) for item, mask in zip(selected, probs, strict=True)]

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (N, C, H_i, W_i) to the semantic result (N, K, h, w) at the first level's stride.

        Its values are the logarithms of the scores; a single class has its score.
        """
        size, extent = size_of(levels[self.in_index[0]]), self.extent(levels)
        detections = self.detect(levels, windows_of([{}] * len(levels[0]), extent), Inference())
        return self.semantic([scaled(item, extent, size) for item in detections], size)

    def predict(
        self, inputs: Sequence[Tensor], batch_img_metas: list[dict], test_cfg: Mapping | None
    ) -> Tensor:
        """Semantic result (N, K, H, W) at the size of the input; see ``forward``.

        Args:
            inputs: Levels of the neck.
            batch_img_metas: Meta of each image.
            test_cfg: Settings of inference.
        """
        settings = read_settings(Inference, test_cfg, 'test_cfg')
        detections = self.detect(inputs, windows_of(batch_img_metas, self.extent(inputs)), settings)
        return self.semantic(detections, input_size(batch_img_metas[0]))

    def extent(self, levels: Sequence[Tensor]) -> Size:
        """Size (H, W) of the levels in pixels of the input, up to a cell larger than it."""
        h, w = size_of(levels[self.in_index[0]])
        stride = self.rpn.strides[0]
        return h * stride, w * stride

    def semantic(self, detections: Sequence[Detections], size: Size) -> Tensor:
        """Semantic result (N, K, H, W) of the instances in images of ``size`` (H, W)."""
        scores = [semantic_scores(item, self.num_classes, size) for item in detections]
        return as_logits(torch.stack(scores))

    def loss(
        self, inputs: Sequence[Tensor], batch_data_samples: list, train_cfg: Mapping | None = None
    ) -> dict[str, Tensor]:
        """Losses of the proposals, classes, boxes and masks.

        Args:
            inputs: Levels (N, C, H_i, W_i) of the neck.
            batch_data_samples: Data samples with ``gt_instances``.
            train_cfg: Settings of training.

        Raises:
            UserError: An image has no objects with masks, or they are wrong; see ``objects_of``.
        """
        settings = read_settings(Training, train_cfg, 'train_cfg')
        levels = [inputs[i] for i in self.in_index]
        candidates = self.rpn(levels)
        size = self.extent(inputs)
        windows = windows_of([sample.metainfo for sample in batch_data_samples], size)
        like = candidates.anchors[0]
        objects = [
            objects_of(sample, window, self.num_classes, like)
            for sample, window in zip(batch_data_samples, windows, strict=True)
        ]
        losses = self.rpn.loss(candidates, objects, settings)
        proposals = self.rpn.proposals(candidates, windows, settings)
        regions = [
            sample_regions(*pair, self.num_classes, settings)
            for pair in zip(proposals, objects, strict=True)
        ]
        return losses | self._region_losses(levels, regions, objects, settings)

    def _region_losses(
        self, levels: Sequence[Tensor], regions: list, objects: list, settings: Training
    ) -> dict[str, Tensor]:
        rois = rois_of([region.boxes for region in regions])
        labels = torch.cat([region.labels for region in regions])
        output = self.box_head(self.pooling(levels, rois, self.box_head.roi_size))
        logits, deltas = at_least_float32(output.logits), at_least_float32(output.deltas)
        is_object = labels < self.num_classes
        foreground = [region.boxes[: len(region.numbers)] for region in regions]
        pairs = list(zip(foreground, regions, objects, strict=True))
        targets = torch.cat(
            [encode(boxes, image.boxes[r.numbers], BOX_WEIGHTS) for boxes, r, image in pairs]
        )
        box_loss = F.smooth_l1_loss(
            deltas[is_object, labels[is_object]], targets, reduction='sum', beta=settings.box_beta
        )
        masks = [
            mask_targets(boxes, image.masks, r.numbers, self.mask_head.mask_size)
            for boxes, r, image in pairs
        ]
        return dict(
            loss_cls=F.cross_entropy(logits, labels),
            # without an object the deltas have the gradient 0
            loss_box=box_loss / len(labels) + 0 * deltas.sum(),
            loss_mask=self._mask_loss(levels, rois_of(foreground), labels[is_object], masks, rois),
        )

    def _mask_loss(
        self,
        levels: Sequence[Tensor],
        rois: Tensor,
        labels: Tensor,
        masks: Sequence[Tensor],
        substitutes: Tensor,
    ) -> Tensor:
        """Mean binary cross entropy of the masks of the classes of regions (M, 5).

        Without a region it is 0, computed with one of ``substitutes``, so that every weight of the
        mask head has a gradient.
        """
        if not len(labels):
            grids = self.pooling(levels, substitutes[:1], self.mask_head.roi_size)
            return 0 * at_least_float32(self.mask_head(grids)).sum()
        grids = self.pooling(levels, rois, self.mask_head.roi_size)
        logits = at_least_float32(self.mask_head.logits_of(grids, labels))
        return F.binary_cross_entropy_with_logits(logits, torch.cat(list(masks)).to(logits))

    @torch.no_grad()
    def explain(
        self,
        levels: Sequence[Tensor],
        *,
        point: Point | None = None,
        label: Tensor | None = None,
        **side_inputs: Any,
    ) -> Maps:
        """Maps of the instances with the highest scores; see ``explain_regions``."""
        return explain_regions(self, levels)


def _check_levels(
    in_channels: Sequence[int], in_index: Sequence[int], strides: Sequence[int], num_pooled: int
) -> None:
    if len(set(in_channels)) > 1:
        raise UserError(
            f'PANetInstanceHead reads levels of one width, got in_channels={list(in_channels)}: '
            'put a neck before it, such as PANetFPN'
        )
    if not len(in_channels) == len(in_index) == len(strides):
        raise UserError(
            f'PANetInstanceHead has {len(strides)} strides for {len(in_channels)} levels: give '
            'strides and in_index of the same length as in_channels, and num_outs of the neck'
        )
    if num_pooled > len(in_channels):
        raise UserError(
            f'pooling has {num_pooled} strides, but there are {len(in_channels)} levels: give '
            'pooling.strides of these levels'
        )
