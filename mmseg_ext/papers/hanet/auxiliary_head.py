"""Auxiliary head of HANet's recipe."""

from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads.fcn_head import FCNHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from ...layers.head_defaults import CROSS_ENTROPY, released_defaults
from .initialisation import ReleasedInit


@MODELS.register_module()
class HANetAuxHead(ReleasedInit, FCNHead):
    """Auxiliary head of the paper's recipe: a 3x3 convolution on c3.

    Its loss differs from that of ``FCNHead``: labels are resized to the logits (nearest pixel),
    where ``FCNHead`` resizes the logits to the labels.

    Args:
        in_channels: Channels of the level that the head reads, 1024 for the third of ResNet.
        in_index: Index of that level in the output of the backbone.
        channels: Channels of the convolution.
        **kwargs: Arguments of ``FCNHead``. The loss has the weight 0.4 by default.
    """

    host_counterpart = dict(type='FCNHead', num_convs=1, concat_input=False)

    def __init__(
        self, in_channels: int = 1024, in_index: int = 2, channels: int = 512, **kwargs: Any
    ) -> None:
        loss = dict(CROSS_ENTROPY, loss_weight=0.4)
        kwargs = released_defaults(kwargs, num_convs=1, concat_input=False, loss_decode=loss)
        super().__init__(in_channels=in_channels, in_index=in_index, channels=channels, **kwargs)

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict:
        """Losses of logits (N, K, h, w) of any size, on labels subsampled to (h, w)."""
        label = self._stack_batch_gt(batch_data_samples)
        (h, w), (height, width) = seg_logits.shape[2:], label.shape[2:]
        rows = torch.arange(h, device=label.device) * height // h
        columns = torch.arange(w, device=label.device) * width // w
        shrunk = label[..., rows[:, None], columns]
        samples = [SegDataSample(gt_sem_seg=PixelData(data=data)) for data in shrunk]
        return super().loss_by_feat(seg_logits, samples)
