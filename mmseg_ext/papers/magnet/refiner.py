"""The network that merges two predictions of a patch, and the loss it learns by."""

from typing import Any

import torch
from mmcv.cnn import ConvModule, build_norm_layer
from mmseg.models.backbones.resnet import Bottleneck
from mmseg.models.utils import ResLayer
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...layers.pytorch_init import PyTorchInit
from ...losses import WeightedCELoss


@MODELS.register_module()
class MagNetRefiner(PyTorchInit):
    """Two predictions of a patch, at its own scale and accumulated so far, to one.

    Args:
        num_classes: K, at least 2.
        channels: Width of the first convolutions (64 as released).
        input_norm: Normalise the probabilities first, as the released scripts do.
        coarse_first: Concatenates the accumulated prediction before that of the scale. For
            checkpoints trained by the released code, which trains in this order.
        norm_cfg: Of all norms; batch norm of momentum 0.01 as released.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int = 64,
        input_norm: bool = True,
        coarse_first: bool = False,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        norm_cfg = norm_cfg or dict(type='BN', momentum=0.01)
        self.coarse_first = coarse_first
        # Its own layer: behind a fold into the convolution, zero padding would be another value.
        self.bn0: nn.Module = (
            build_norm_layer(norm_cfg, 2 * num_classes)[1] if input_norm else nn.Identity()
        )
        self.conv1 = ConvModule(2 * num_classes, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.conv2 = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.residual = ResLayer(Bottleneck, channels, channels // 2, 2, norm_cfg=norm_cfg)
        self.conv_seg = nn.Conv2d(2 * channels, num_classes, 1, bias=False)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Probabilities of the patch at its scale and accumulated, to logits; all (N, K, h, w)."""
        inputs = (coarse, fine) if self.coarse_first else (fine, coarse)
        x = self.conv2(self.conv1(self.bn0(torch.cat(inputs, dim=1))))
        return self.conv_seg(self.residual(x))


@MODELS.register_module()
class MagNetOhemLoss(WeightedCELoss):
    """Mean cross entropy of the pixels whose class has a low probability, as released.

    Args:
        threshold: Probability of the labelled class below which a pixel always counts.
        strict: Whether a pixel at the threshold itself does not count.
        loss_name: Key in the log; it has to contain "loss", or the loss is not trained.
        **kwargs: Further arguments of ``WeightedCELoss``.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.7,
        strict: bool = True,
        loss_name: str = 'loss_ohem',
        **kwargs: Any,
    ) -> None:
        super().__init__(threshold=threshold, strict=strict, loss_name=loss_name, **kwargs)
