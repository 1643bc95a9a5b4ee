"""Initial weights of HANet's heads."""

from mmengine.model import BaseModule, kaiming_init
from torch import nn


class ReleasedInit(BaseModule):
    """Initialise convolutions as released: Kaiming's normal distribution (fan in), zero bias."""

    def init_weights(self) -> None:
        super().init_weights()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_init(module, mode='fan_in')
