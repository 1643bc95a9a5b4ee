"""OCRNet's head as a single module.

Yuan, Chen, Wang: "Object-Contextual Representations for Semantic Segmentation", ECCV 2020,
arXiv 1909.11065, in the form released with NVIDIA/semantic-segmentation (BSD-3-Clause).

Differs from the host's cascade of ``FCNHead`` and ``OCRHead``:

- One forward pass returns the result and the soft regions.
- Two convolutions have a bias, as released, so that released weights only need to be renamed.
- The 1x1 convolution of the soft regions runs at the resolution of each level.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.decode_heads.ocr_head import ObjectAttentionBlock
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..host import resizes_logits
from ..layers.head_defaults import CROSS_ENTROPY, released_defaults
from ..layers.levels import pointwise_of_levels, require_levels, resize
from ..layers.pytorch_init import PyTorchInit


class ObjectAttention(ObjectAttentionBlock):
    """The host's block with ``scaled_dot_product_attention``: pixels attend to K class centres."""

    def forward(self, query_feats: Tensor, key_feats: Tensor) -> Tensor:
        """Pixels (N, C, H, W) and class centres (N, C, K, 1) to (N, C, H, W)."""
        n, _, h, w = query_feats.shape
        query = self.query_project(query_feats).flatten(2).mT  # (N, HW, key channels)
        key = self.key_project(key_feats).flatten(2).mT  # (N, K, key channels)
        value = self.value_project(key_feats).flatten(2).mT
        context = F.scaled_dot_product_attention(query, key, value)  # scale = key channels ** -0.5
        context = self.out_project(context.mT.reshape(n, -1, h, w))
        return self.bottleneck(torch.cat([context, query_feats], dim=1))


def gather_class_centres(feats: Tensor, logits: Tensor) -> Tensor:
    """Mean feature of each class, weighted by the softmax of its logits over all positions.

    Args:
        feats: Features, (N, C, H, W).
        logits: Logits of the classes, (N, K, H, W).

    Returns:
        Class centres (N, C, K, 1), in the type of ``feats``.
    """
    weights = logits.flatten(2).float().softmax(dim=2)  # float32: a sum over thousands of positions
    return (feats.flatten(2) @ weights.to(feats.dtype).mT)[..., None]


@MODELS.register_module()
class OCRNetHead(PyTorchInit, BaseDecodeHead):
    """Classifies pixels by their features and an attention-weighted mean of class centres.

    Args:
        in_channels: Channels of every level, finest first; all levels are resized to the first.
        in_index: Indices of the levels in the backbone's output.
        channels: Width of the pixel features (512 as released).
        ocr_channels: Width of query, key and value (256 as released).
        dropout_ratio: Probability of dropping a channel of the features before the classifier.
        loss_aux: Config of the loss of the soft regions' logits, in the form of ``loss_decode``.
        **kwargs: Arguments of the host's ``BaseDecodeHead``.

    Raises:
        UserError: ``in_channels`` is a single number.
    """

    host_counterpart = dict(type='OCRHead')

    aux_logits = (1,)

    reads_levels = True

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        in_index: Sequence[int] | int = (0, 1, 2, 3),
        channels: int = 512,
        ocr_channels: int = 256,
        dropout_ratio: float = 0.05,
        loss_aux: dict | None = None,
        **kwargs: Any,
    ) -> None:
        require_levels(self, in_channels)
        kwargs |= dict(input_transform='multiple_select', in_index=in_index)
        super().__init__(
            in_channels, channels, dropout_ratio=dropout_ratio, **released_defaults(kwargs)
        )
        width = sum(in_channels)
        layers = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.bottleneck = ConvModule(width, channels, 3, padding=1, bias=True, **layers)
        self.aux_conv = ConvModule(width, width, 1, bias=True, **layers)
        self.aux_seg = nn.Conv2d(width, self.out_channels, 1)
        self.object_context_block = ObjectAttention(channels, ocr_channels, scale=1, **layers)
        self.loss_aux = MODELS.build(
            loss_aux or dict(CROSS_ENTROPY, loss_weight=0.4, loss_name='loss_aux')
        )

    def forward(self, inputs: list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Levels (N, C_i, H_i, W_i) to logits (N, K, H_0, W_0).

        In training it returns the logits and the soft regions' logits.
        """
        logits, aux = self.result_and_regions(inputs)
        return (logits, aux) if self.training else logits

    def result_and_regions(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits of the result and of the soft regions, (N, K, H_0, W_0) each."""
        levels = self._transform_inputs(inputs)
        size = levels[0].shape[2:]
        feats = self.bottleneck(torch.cat([self._to_size(x, size) for x in levels], dim=1))
        aux = self._soft_regions(levels)
        centres = gather_class_centres(feats, aux)
        return self.cls_seg(self.object_context_block(feats, centres)), aux

    def _to_size(self, x: Tensor, size: torch.Size) -> Tensor:
        return resize(x, size, self.align_corners)

    def _soft_regions(self, levels: list[Tensor]) -> Tensor:
        """Logits of the soft regions, (N, K, H_0, W_0), from all levels."""
        total = pointwise_of_levels(self.aux_conv.conv, levels, self.align_corners)
        return self.aux_seg(self.aux_conv.activate(self.aux_conv.norm(total)))

    def loss_by_feat(self, seg_logits: tuple[Tensor, Tensor], batch_data_samples: list) -> dict:
        """Losses of the logits and of the soft regions' logits, (N, K, h, w) each."""
        logits, aux = seg_logits
        losses = super().loss_by_feat(logits, batch_data_samples)
        label = self._stack_batch_gt(batch_data_samples).squeeze(1)
        keys = dict(ignore_index=self.ignore_index)
        if resizes_logits(self.loss_aux):
            keys['align_corners'] = self.align_corners
        else:
            aux = self._to_size(aux, label.shape[1:])
        losses[self.loss_aux.loss_name] = self.loss_aux(aux, label, **keys)
        return losses
