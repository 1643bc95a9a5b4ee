"""How most released code starts its convolutions."""

from mmengine.model import BaseModule
from torch import nn


class PyTorchInit(BaseModule):
    """PyTorch's default for every convolution inside; the host's differs."""

    def init_weights(self) -> None:
        """Also runs what the host's class does."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
