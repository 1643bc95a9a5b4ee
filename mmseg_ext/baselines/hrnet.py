"""HRNet as released.

Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", TPAMI 2020,
arXiv 1908.07919. Code: HRNet/HRNet-Semantic-Segmentation (MIT).

Differs from the host's ``HRNet``: a coarse branch is resized directly to the size of the branch
that it is added to. The host enlarges it by the nominal factor and then resizes it again, which
gives other features if the input size is no multiple of 32. The state-dict keys are the same.
"""

from typing import Any

import torch.nn.functional as F
from mmengine.model import Sequential
from mmseg.models.backbones import HRNet
from mmseg.models.backbones.hrnet import HRModule
from mmseg.registry import MODELS
from torch import Tensor, nn


class ExactHRModule(HRModule):
    """Parallel branches and their fusion; the backbone sets ``align_corners``."""

    align_corners = False

    def _make_fuse_layers(self) -> nn.ModuleList | None:
        layers = super()._make_fuse_layers()
        for i, row in enumerate(layers or ()):
            for j in range(i + 1, len(row)):
                row[j] = row[j][:2]  # keeps conv and norm, removes the host's upsampling
        return layers

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Branch inputs (N, C_i, H_i, W_i), finest first, to fused maps of the same sizes."""
        x = [branch(features) for branch, features in zip(self.branches, x, strict=True)]
        if self.num_branches == 1:
            return x
        return [self.relu(self._fuse(i, x)) for i in range(len(self.fuse_layers))]

    def _fuse(self, i: int, x: list[Tensor]) -> Tensor:
        """Sum of all branches, in their order, at the size of branch ``i``."""
        total: Tensor | None = None
        for j, layer in enumerate(self.fuse_layers[i]):
            y = x[j] if j == i else layer(x[j])
            if j > i:
                y = F.interpolate(
                    y, size=x[i].shape[2:], mode='bilinear', align_corners=self.align_corners
                )
            total = y if total is None else total + y
        assert total is not None
        return total


@MODELS.register_module()
class HRNetExact(HRNet):
    """HRNetV2 backbone: images (N, 3, H, W) to four maps, of strides 4, 8, 16 and 32 by default.

    Args:
        align_corners: Whether the resizing in fusions aligns corners.
        stem_strides: Strides of the two convolutions of the stem.
        **kwargs: Arguments of the host's ``HRNet``.
    """

    host_counterpart = dict(type='HRNet')

    def __init__(
        self, *, align_corners: bool = False, stem_strides: tuple[int, int] = (2, 2), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.conv1.stride, self.conv2.stride = [(stride, stride) for stride in stem_strides]
        for module in self.modules():
            if isinstance(module, ExactHRModule):
                module.align_corners = align_corners

    def train(self, mode: bool = True) -> 'HRNetExact':
        """Sets the mode and returns the module; the host's method returns None."""
        super().train(mode)
        return self

    def _make_stage(
        self, layer_config: dict, in_channels: list[int], multiscale_output: bool = True
    ) -> tuple[Sequential, list[int]]:
        modules = [
            ExactHRModule(
                layer_config['num_branches'],
                self.blocks_dict[layer_config['block']],
                layer_config['num_blocks'],
                in_channels,
                layer_config['num_channels'],
                multiscale_output or index < layer_config['num_modules'] - 1,
                with_cp=self.with_cp,
                norm_cfg=self.norm_cfg,
                conv_cfg=self.conv_cfg,
            )
            for index in range(layer_config['num_modules'])
        ]
        return Sequential(*modules), in_channels
