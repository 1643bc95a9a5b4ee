"""PyTorch's default initialisation, which most released code uses."""

from mmengine.model import BaseModule
from torch import nn


class PyTorchInit(BaseModule):
    """Mixin that initialises every convolution as PyTorch does by default; the host differs."""

    def init_weights(self) -> None:
        """Initialises weights as the host does, then resets all convolutions."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
