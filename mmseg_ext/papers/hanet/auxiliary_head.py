"""Auxiliary head of HANet's recipe."""

from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads.fcn_head import FCNHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from .initialisation import ReleasedInit


@MODELS.register_module()
class HANetAuxHead(ReleasedInit, FCNHead):
    """The auxiliary head of the paper's recipe, on c3: a 3x3 convolution, trained at its own size.

    Differs from the host's ``FCNHead`` in its loss: the labels are shrunk to the logits, by the
    nearest pixel, and not the logits enlarged.

    Args:
        in_channels: Of the level read, 1024 for ResNet's third.
        in_index: Its place in the backbone's output.
        channels: Of the convolution.
        **kwargs: As for the host's ``FCNHead``; the loss counts 0.4.
    """

    def __init__(
        self, in_channels: int = 1024, in_index: int = 2, channels: int = 512, **kwargs: Any
    ) -> None:
        loss = dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4)
        defaults: dict[str, Any] = dict(
            num_convs=1, concat_input=False, norm_cfg=dict(type='BN'), loss_decode=loss
        )
        kwargs = dict(init_cfg=None) | defaults | kwargs
        super().__init__(in_channels=in_channels, in_index=in_index, channels=channels, **kwargs)

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict:
        """Losses of logits (N, K, h, w) of any size, on every so-many-th pixel of the labels."""
        label = self._stack_batch_gt(batch_data_samples)
        (h, w), (height, width) = seg_logits.shape[2:], label.shape[2:]
        rows = torch.arange(h, device=label.device) * height // h
        columns = torch.arange(w, device=label.device) * width // w
        shrunk = label[..., rows[:, None], columns]
        samples = [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in shrunk]
        return super().loss_by_feat(seg_logits, samples)
