"""The network that merges two predictions of a patch, and the loss it learns by."""

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmseg.models.backbones.resnet import Bottleneck
from mmseg.models.utils import ResLayer
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...layers.precision import at_least_float32
from ...layers.pytorch_init import PyTorchInit


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
class MagNetOhemLoss(nn.Module):
    """Mean cross entropy of the pixels whose class has a low probability.

    Pixels below the larger of ``thres`` and the probability that has ``min_kept`` smaller ones in
    the batch count, as released. The host's ``OhemCrossEntropy`` is the same rule, but loses its
    graph on a batch without labels and is NaN on one without hard pixels; both give 0 here.

    Args:
        thres: Probability under which a pixel always counts.
        min_kept: So many pixels of a batch count at least.
        loss_weight: Factor of the loss.
        loss_name: Key in the log; has to contain "loss" to be trained.
    """

    def __init__(
        self,
        *,
        thres: float = 0.7,
        min_kept: int = 100_000,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ohem',
    ) -> None:
        super().__init__()
        self.thres = thres
        self.min_kept = min_kept
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, logits: Tensor, label: Tensor, ignore_index: int = 255) -> Tensor:
        """Logits (N, K, H, W) and class indices (N, H, W), int64, to a scalar, float32 or better.

        A negative ``ignore_index`` ignores nothing.
        """
        logits = at_least_float32(logits)
        valid = label != ignore_index
        target = torch.where(valid, label, 0)
        terms = F.cross_entropy(logits, target, reduction='none')  # (N, H, W)
        probs = torch.exp(-terms.detach())
        ranked = torch.where(valid, probs, torch.inf).flatten().sort().values
        last = (valid.sum() - 1).clamp(min=0)
        threshold = ranked.gather(0, last.clamp(max=self.min_kept)[None]).clamp(min=self.thres)
        kept = valid & (probs < threshold)
        total = torch.where(kept, terms, 0).sum() / kept.sum().clamp(min=1)
        return self.loss_weight * total
