"""Network that merges two predictions of a patch."""

import torch
from mmcv.cnn import ConvModule, build_norm_layer
from mmseg.models.backbones.resnet import Bottleneck
from mmseg.models.utils import ResLayer
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...layers.pytorch_init import PyTorchInit


@MODELS.register_module()
class MagNetRefiner(PyTorchInit):
    """Merge two predictions of a patch: the prediction at its scale and the accumulated prediction.

    Args:
        num_classes: Number K of classes, at least 2.
        channels: Width of the first convolutions (64 as released).
        input_norm: Whether the probabilities are normalised first, as in the released scripts.
        coarse_first: Whether the accumulated prediction comes first in the concatenation. The
            released code trains in this order, so its checkpoints need True.
        norm_cfg: Config of all norms; as released, batch norm with momentum 0.01.
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
        # A layer, not folded into the convolution: zero padding would then have another value.
        self.bn0: nn.Module = (
            build_norm_layer(norm_cfg, 2 * num_classes)[1] if input_norm else nn.Identity()
        )
        self.conv1 = ConvModule(2 * num_classes, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.conv2 = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.residual = ResLayer(Bottleneck, channels, channels // 2, 2, norm_cfg=norm_cfg)
        self.conv_seg = nn.Conv2d(2 * channels, num_classes, 1, bias=False)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Logits of the patch; arguments are probabilities, all are (N, K, h, w)."""
        inputs = (coarse, fine) if self.coarse_first else (fine, coarse)
        x = self.conv2(self.conv1(self.bn0(torch.cat(inputs, dim=1))))
        return self.conv_seg(self.residual(x))
