"""A segmentor of a few weights with an ``explain``, for the tests of pictures and averaging."""

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class NeighbourBackbone(BaseModule):
    """Each pixel and its left-hand neighbour: flips change the logits."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.cat([x, x.roll(1, 3)], dim=1)]


@MODELS.register_module()
class TinyExplainer(EncoderDecoder):
    explains = explains_pixels = True

    def explain(
        self,
        inputs: Tensor,
        data_samples: list | None = None,
        pixel: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        logits = self._forward(inputs)
        brightness = inputs.mean(1, keepdim=True).sigmoid()
        maps = {
            'attention_0.5': brightness,
            'prediction_0.5': logits[..., ::2, ::2],
            'prediction_1.0': logits,
            'scale_weight': torch.cat([brightness, 1 - brightness], dim=1),
        }
        if pixel is not None:
            x, y = pixel
            distance = (inputs - inputs[:, :, y : y + 1, x : x + 1]).abs().mean(1, keepdim=True)
            maps['attention_of_pixel'] = (-distance).exp()
        return maps


def model_config(num_classes: int = 3, out_channels: int | None = None, **changes) -> ConfigDict:
    head = dict(
        type='FCNHead',
        in_channels=6,
        in_index=0,
        channels=8,
        num_convs=1,
        num_classes=num_classes,
        out_channels=out_channels,
        threshold=0.5,
        dropout_ratio=0,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=out_channels == 1),
    )
    model = dict(
        type='TinyExplainer',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[127.0] * 3,
            std=[64.0] * 3,
            bgr_to_rgb=True,
            size_divisor=16,
            test_cfg=dict(size_divisor=16),
        ),
        backbone=dict(type='NeighbourBackbone'),
        decode_head=head,
        test_cfg=dict(mode='whole'),
    )
    return ConfigDict({**model, **changes})
